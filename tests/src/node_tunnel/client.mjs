// Tunnels over HTTP/2 on one connection, until that ends; prints what happened, and when.

import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectTls } from "node:tls";

const { host, port, name, ca, target, token, tunnels } = JSON.parse(process.argv[2]);
const events = [];
let received = 0;
const note = (what, more = {}) => events.push({ what, at: Date.now(), received, ...more });

const socket = connectTls({
  host,
  port,
  servername: name,
  ca: readFileSync(ca),
  ALPNProtocols: ["h2"],
});
socket.on("error", ({ code }) => note("socket", { code }));
const session = connectHttp2(`https://${name}:${port}`, { createConnection: () => socket });
session.on("error", ({ code }) => note("session", { code }));
session.on("goaway", (code) => note("goaway", { code }));
session.on("close", () => {
  note("closed");
  console.log(JSON.stringify(events));
});

for (let count = 0; count < tunnels; count += 1) {
  const tunnel = session.request({
    ":method": "CONNECT",
    ":authority": target,
    "proxy-authorization": `Bearer ${token}`,
  }, { endStream: false });
  const talking = setInterval(() => tunnel.write("a line that comes back\n"), 10);
  tunnel.on("response", (fields) => note("response", { status: fields[":status"] }));
  tunnel.on("data", (data) => (received += data.length));
  tunnel.on("error", ({ code }) => note("tunnel", { code }));
  tunnel.on("close", () => clearInterval(talking));
  tunnel.write("echo\n");
}
