// An OpenID Connect server as Azure's command line takes it for AD FS:
//   node adfs.mjs LIBRARY PORT CERTIFICATE KEY SETTINGS
// SETTINGS (JSON): `directory`, `resources`, `programs` {client id: secret}. Everybody else signs in with any password.
import fs from "node:fs";
import https from "node:https";

const [library, port, certificate, key, settings] = process.argv.slice(2);
const { Provider } = await import(library);
const { directory, resources, programs } = JSON.parse(settings);

const PREFIX = "/adfs";
const DEFAULT = "/.default";
const AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

// az names what its token is for in the scope, as Entra has it, not by RFC 8707
function resourceOf(ctx) {
  const scopes = (ctx.oidc.params.scope ?? "").split(" ");
  return resources.find((resource) => scopes.includes(resource + DEFAULT));
}

const program = ([id, secret]) => ({
  client_id: id,
  client_secret: secret,
  grant_types: ["client_credentials"],
  token_endpoint_auth_method: "client_secret_post",
  redirect_uris: [],
  response_types: [],
});

const provider = new Provider(`https://localhost:${port}${PREFIX}`, {
  clients: [
    ...Object.entries(programs).map(program),
    {
      client_id: AZURE_CLI,
      application_type: "native",
      grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
      token_endpoint_auth_method: "none",
      redirect_uris: [],
      response_types: [],
    },
  ],
  claims: { profile: ["preferred_username", "tid"] },
  conformIdTokenClaims: false, // az reads the person's name from the ID token
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, tid: directory }),
  }),
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: resourceOf,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: resource + DEFAULT,
        audience: resource,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

// az prints `message`, which Entra and AD FS add to RFC 8628's answer, and stops without it
provider.use(async (ctx, next) => {
  await next();
  if (ctx.body?.device_code) {
    const { verification_uri: page, user_code: code } = ctx.body;
    ctx.body.message = `To sign in, use a web browser to open the page ${page} and enter the code ${code} to authenticate.`;
  }
});
provider.on("server_error", (_, error) => console.error(error));
provider.on("grant.error", (_, error) => console.error(error.message, error.error_description));

const answer = provider.callback();
https
  .createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }, (request, response) => {
    if (!request.url.startsWith(`${PREFIX}/`)) {
      response.writeHead(404).end();
      return;
    }
    request.originalUrl = request.url;
    request.url = request.url.slice(PREFIX.length);
    answer(request, response);
  })
  .listen(Number(port), "127.0.0.1", () => console.log("ready"));
