// The letter of the bench, rendered from the same templates; `bench/letter/__init__.py` says what it is filled with.
const path = require("node:path");
const nunjucks = require("nunjucks");

const folder = path.join(__dirname, "..", "..", "letter");
const things = ["Teapot, blue", "Cup & saucer", "Milk jug", "Sugar tongs", "Tray, oak", "Tea towel", "Strainer"];
const plain = new nunjucks.Environment(new nunjucks.FileSystemLoader(folder), { autoescape: false });
const escaped = new nunjucks.Environment(new nunjucks.FileSystemLoader(folder), { autoescape: true });
const subject = plain.getTemplate("subject.txt");
const text = plain.getTemplate("text.txt");
const page = escaped.getTemplate("page.html");

function context(number) {
  const counts = [0, 1, 2, 3].map((place) => 1 + ((number + place) % 3));
  return {
    name: `Anna Client the ${number}th`,
    number,
    street: `Long Street ${number % 300}`,
    town: "10115 Berlin",
    items: counts.map((count, place) => ({ name: things[(number + place) % things.length], count, price: "12.50" })),
    total: (12.5 * counts.reduce((sum, count) => sum + count)).toFixed(2),
  };
}

function rendered(number) {
  const values = context(number);
  return {
    from: "bench-0@shop.example",
    to: `anna.${number}@client.example`,
    subject: subject.render(values),
    text: text.render(values),
    html: page.render(values),
  };
}

module.exports = { rendered };
