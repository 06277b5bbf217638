// Sends a request over HTTP/2 whose body waits until it is asked for, and prints what comes, a line
// for each: statuses, then the body.
//
// Arguments: address, port, name of the server, the file of its CA, a token, the body.

import fs from "node:fs";
import http2 from "node:http2";

const [address, port, servername, ca, token, body] = process.argv.slice(2);
const session = http2.connect(`https://${address}:${port}`, {
  ca: fs.readFileSync(ca),
  servername,
});
session.on("error", (error) => {
  console.log(`error ${error.message}`);
  process.exitCode = 1;
});
const request = session.request({
  ":method": "POST",
  ":path": "/",
  ":authority": servername,
  authorization: `Bearer ${token}`,
  expect: "100-continue",
});
request.on("headers", (headers) => console.log(headers[":status"]));
request.on("continue", () => request.end(body));
request.on("response", (headers) => console.log(headers[":status"]));
request.setEncoding("utf8");
let answer = "";
request.on("data", (piece) => (answer += piece));
request.on("end", () => {
  console.log(answer.trim());
  request.destroy();
  session.close();
});
