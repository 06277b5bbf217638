// An OpenID provider for the tests: client_credentials, JWT and opaque access tokens, introspection,
// revocation; and two things that no standard has: new keys, and a log of what was asked.
//
//   node server.mjs MODULES HOST CERTIFICATE KEY PORT_FILE LOG
import { generateKeyPairSync } from 'node:crypto';
import { appendFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { pathToFileURL } from 'node:url';

const [modules, host, certificate, key, portFile, log] = process.argv.slice(2);
const library = pathToFileURL(`${modules}/oidc-provider/lib/index.js`);
const { default: Provider } = await import(library);

let generation = 0;
function newKey() {
  generation += 1;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: `key-${generation}`, use: 'sig' };
}

// The first signs, all of them are published. Tokens are in the library's memory, and outlive a
// change of keys.
let keys = [newKey()];
const changes = {
  '/test/add-key': (keys) => [newKey(), ...keys],
  '/test/replace-keys': () => [newKey()],
  '/test/retire-keys': ([signing]) => [signing],
};
const formats = { 'urn:enforcer:jwt': 'jwt', 'urn:enforcer:opaque': 'opaque' };

function provider(issuer) {
  return new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: ['of no use here'] },
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    clients: [
      {
        client_id: 'alice',
        client_secret: 'alice-secret',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
      {
        client_id: 'enforcer',
        client_secret: 'enforcer-secret',
        grant_types: [],
        redirect_uris: [],
        response_types: [],
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          audience: 'bed',
          scope: 'read',
          accessTokenTTL: 600,
          accessTokenFormat: formats[resource],
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
}

let answer;
const server = createServer(
  { cert: readFileSync(certificate), key: readFileSync(key) },
  (request, response) => {
    appendFileSync(log, `${request.method} ${request.url}\n`);
    if (request.url.startsWith('/test/')) {
      keys = changes[request.url](keys);
      answer = provider(issuer).callback();
      response.end('done');
    } else {
      answer(request, response);
    }
  },
);
let issuer;
server.listen(0, () => {
  issuer = `https://${host}:${server.address().port}`;
  answer = provider(issuer).callback();
  writeFileSync(`${portFile}.new`, `${server.address().port}`);
  renameSync(`${portFile}.new`, portFile);
});
