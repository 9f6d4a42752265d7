// undici's fetch writes, and reads the receipt by the Location it got; with "tunnel", through CONNECT, as it does by itself.
import { createRequire } from 'node:module'

const [how, proxy, url] = process.argv.slice(2)
const { ProxyAgent, fetch } = createRequire(process.env.NODE_MODULES)('undici')
const dispatcher = new ProxyAgent({ uri: proxy, proxyTunnel: how === 'tunnel' })
const signal = AbortSignal.timeout(20_000)
const answer = await fetch(url, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ from: 'fetch' }),
  dispatcher,
  signal
})
const location = new URL(answer.headers.get('location'), url)
const receipt = await (await fetch(location, { dispatcher, signal })).json()
console.log(answer.status, receipt.state, '|', location.href)
await dispatcher.close()
