// A site that hands its letters over; it speaks as bench/producing.py tells.
const readline = require("node:readline");
const { Queue } = require("bullmq");
const { rendered } = require("./letter");

const BATCH = 100;
const PRIORITIES = { high: 1, bulk: 2 }; // without one a job goes the fast way

const queue = new Queue("mail", { connection: { path: process.env.REDIS_SOCKET } });
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

async function handOver({ first, count, singly, priority }) {
  const options = { priority: PRIORITIES[priority], attempts: 10, backoff: { type: "exponential", delay: 1000 } };
  const began_at = seconds();
  const calls_ms = [];
  if (!singly) {
    for (let number = first; number < first + count; number += BATCH) {
      const batch = Array.from({ length: Math.min(BATCH, first + count - number) }, (_, place) => number + place);
      await queue.addBulk(batch.map((each) => ({ name: "mail", data: rendered(each), opts: options })));
    }
  } else {
    for (let number = first; number < first + count; number++) {
      const letter = rendered(number);
      const called_at = seconds();
      await queue.add("mail", letter, options);
      calls_ms.push((seconds() - called_at) * 1000);
    }
  }
  return { began_at, ended_at: seconds(), calls_ms };
}

async function main() {
  await queue.waitUntilReady();
  console.log("ready");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await handOver(JSON.parse(line))));
  }
  await queue.close();
}

main();
