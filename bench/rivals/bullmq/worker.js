// Sends over a pool of kept sessions. Twice as many jobs as sessions are in hand, so that none waits for its next mail.
const fs = require("node:fs");
const { Worker } = require("bullmq");
const nodemailer = require("nodemailer");

const { SMTP_HOST, SMTP_PORT, SMTP_LOGIN, SMTP_PASSWORD, SMTP_CA_FILE, REDIS_SOCKET, CONNECTIONS } = process.env;

const transport = nodemailer.createTransport({
  pool: true,
  maxConnections: Number(CONNECTIONS),
  maxMessages: Infinity,
  host: SMTP_HOST,
  port: Number(SMTP_PORT),
  secure: false,
  ...(SMTP_PASSWORD && {
    requireTLS: true,
    auth: { user: SMTP_LOGIN, pass: SMTP_PASSWORD },
    tls: { ca: fs.readFileSync(SMTP_CA_FILE) },
  }),
});

const worker = new Worker("mail", (job) => transport.sendMail(job.data), {
  connection: { path: REDIS_SOCKET, maxRetriesPerRequest: null },
  concurrency: 2 * Number(CONNECTIONS),
});
worker.on("failed", (_job, error) => console.error(error));
process.on("SIGTERM", () => process.exit(0));
