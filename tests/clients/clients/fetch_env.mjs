// undici's fetch with the proxy from the environment, as Node's own fetch does with NODE_USE_ENV_PROXY.
import fs from 'node:fs'
import { createRequire } from 'node:module'

const [proxy, url] = process.argv.slice(2)
const { EnvHttpProxyAgent, fetch } = createRequire(process.env.NODE_MODULES)('undici')
const ca = fs.readFileSync(process.env.CA)
const dispatcher = new EnvHttpProxyAgent({
  httpProxy: proxy, httpsProxy: proxy, noProxy: '', connect: { ca }, requestTls: { ca }, proxyTunnel: false
})
const answer = await fetch(url, { dispatcher, signal: AbortSignal.timeout(20_000) })
console.log(answer.status, answer.headers.get('cache-status') ?? '', '|', await answer.text())
await dispatcher.close()
