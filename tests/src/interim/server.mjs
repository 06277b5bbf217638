// A server on a free port of loopback that says two things before each response: hints (103) and
// that it is at work (102). The response says how long the request's body was.
//
// Arguments: `http`, `h2c` or `h2`; the file that the port goes to; with `h2` a certificate and its
// key.

import fs from "node:fs";
import http from "node:http";
import http2 from "node:http2";

const [protocol, portFile, certificate, key] = process.argv.slice(2);
const link = "</style.css>; rel=preload; as=style";

async function answer(request, response) {
  response.writeEarlyHints({ link });
  if (response.stream) {
    response.stream.additionalHeaders({ ":status": 102 });
  } else {
    response.writeProcessing();
  }
  let length = 0;
  for await (const piece of request) {
    length += piece.length;
  }
  response.end(`${request.method} ${length}\n`);
}

const servers = {
  http: () => http.createServer(answer),
  h2c: () => http2.createServer(answer),
  h2: () =>
    http2.createSecureServer(
      { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) },
      answer,
    ),
};
const server = servers[protocol]();
server.listen(0, "127.0.0.1", () => {
  fs.writeFileSync(`${portFile}.new`, String(server.address().port));
  fs.renameSync(`${portFile}.new`, portFile);
});
