// An OpenID Connect server as a cloud's tenants may have one:
//   node server.mjs LIBRARY PORT CERTIFICATE KEY SETTINGS
// SETTINGS (JSON): `resource` (whom its tokens are for), `keys` (private JWKs), `programs` {client id: secret}, `website`
// {id, redirect, secret or null}, at which people sign in with any password, and `people` {name: claims of their ID tokens}. It
// says `keys asked for` whenever somebody fetches its key set.
import fs from "node:fs";
import https from "node:https";

const [library, port, certificate, key, settings] = process.argv.slice(2);
const { Provider } = await import(library);
const { resource, keys, programs, website, people } = JSON.parse(settings);

const program = ([id, secret]) => ({
  client_id: id,
  client_secret: secret,
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
});

const provider = new Provider(`https://localhost:${port}`, {
  jwks: { keys },
  clients: [
    ...Object.entries(programs).map(program),
    {
      client_id: website.id,
      redirect_uris: [website.redirect],
      ...(website.secret ? { client_secret: website.secret } : { token_endpoint_auth_method: "none" }),
    },
  ],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ ...people[id], sub: id }) }),
  claims: { openid: ["sub", ...new Set(Object.values(people).flatMap(Object.keys))] },
  conformIdTokenClaims: false,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, asked) => ({
        scope: "consoles",
        audience: asked === resource ? resource : "https://elsewhere.example",
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
provider.on("server_error", (_, error) => console.error(error));
provider.on("grant.error", (_, error) => console.error(error.message, error.error_description));

const answer = provider.callback();
https
  .createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }, (request, response) => {
    if (request.url === "/jwks") console.log("keys asked for");
    answer(request, response);
  })
  .listen(Number(port), "127.0.0.1", () => console.log("ready"));
