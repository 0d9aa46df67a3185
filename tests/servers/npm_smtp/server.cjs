// npm's smtp-server, twice: STARTTLS and TLS. Its first argument is what it is to do, as JSON; on stdout a line of JSON
// tells its ports, and then each letter that it took. It ends when its stdin does.
"use strict";

const { readFileSync } = require("node:fs");
const { SMTPServer } = require("smtp-server");

const { chain, host, ports, mailboxes, size } = JSON.parse(process.argv[2]);

function refusal(code, text) {
  return Object.assign(new Error(text), { responseCode: code });
}

function isRight(auth) {
  const password = mailboxes[auth.username];
  if (password === undefined) return false;
  if (auth.method === "XOAUTH2") return auth.accessToken === password;
  return auth.method === "CRAM-MD5" ? auth.validatePassword(password) : auth.password === password;
}

function listen(secure, port) {
  const pem = readFileSync(chain);
  const server = new SMTPServer({
    secure,
    key: pem,
    cert: pem,
    size,
    rejectOversized: true,
    authMethods: ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"],
    hideENHANCEDSTATUSCODES: false,
    hideSMTPUTF8: false,
    disableReverseLookup: true,
    onAuth(auth, session, done) {
      if (isRight(auth)) return done(null, { user: auth.username });
      return done(null, { data: { status: "401", schemes: "bearer" } });
    },
    onMailFrom(address, session, done) {
      done(address.address === session.user ? null : refusal(553, `not owned by user ${session.user}`));
    },
    onRcptTo(address, session, done) {
      done(address.address.startsWith("unknown") ? refusal(550, "no such user here") : null);
    },
    onData(stream, session, done) {
      const pieces = [];
      stream.on("data", (piece) => pieces.push(piece));
      stream.on("end", () => {
        const { mailFrom, rcptTo } = session.envelope;
        if (!stream.sizeExceeded)
          tell({
            content: Buffer.concat(pieces).toString("base64"),
            reverse_path: mailFrom.address,
            recipients: rcptTo.map((each) => each.address),
            login: session.user,
          });
        done(null, "taken");
      });
    },
  });
  server.on("error", (error) => process.stderr.write(`${error.message}\n`));
  return new Promise((resolve) => {
    server.listen(port, host, () => resolve(server.server.address().port));
  });
}

function tell(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

process.stdin.resume().on("end", () => process.exit(0));
Promise.all([listen(false, ports[0]), listen(true, ports[1])]).then((listening) => tell({ ports: listening }));
