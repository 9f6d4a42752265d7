// undici's fetch with a ProxyAgent, which opens a CONNECT tunnel for http:// URLs too.
import fs from 'node:fs'
import { createRequire } from 'node:module'

const { Agent, ProxyAgent, fetch } = createRequire(process.env.NODE_MODULES)('undici')
const [proxy, url] = process.argv.slice(2)
const ca = fs.readFileSync(process.env.CA)
const dispatcher = proxy
  ? new ProxyAgent({ uri: proxy, requestTls: { ca }, proxyTunnel: true })
  : new Agent({ connect: { ca } })
const answer = await fetch(url, { dispatcher, signal: AbortSignal.timeout(20_000) })
console.log(answer.status, answer.headers.get('cache-status') ?? '', '|', await answer.text())
await dispatcher.close()
