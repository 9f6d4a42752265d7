// Node's http module, which sends the absolute URL to the proxy by hand, or opens a tunnel for https://.
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'

const [proxy, url] = process.argv.slice(2)
const target = new URL(url)
const via = proxy ? new URL(proxy) : target

function print (answer) {
  let body = ''
  answer.setEncoding('utf8')
  answer.on('data', chunk => { body += chunk })
  answer.on('end', () => console.log(answer.statusCode, answer.headers['cache-status'] ?? '', '|', body))
}

if (target.protocol === 'http:') {
  const path = proxy ? url : target.pathname
  http.get({ host: via.hostname, port: via.port, path, headers: { host: target.host } }, print)
} else {
  const tunnel = http.request({ host: via.hostname, port: via.port, method: 'CONNECT', path: target.host })
  tunnel.on('connect', (answer, socket) => {
    if (answer.statusCode !== 200) throw new Error(`CONNECT was answered ${answer.statusCode}`)
    const ca = fs.readFileSync(process.env.CA)
    https.get(url, { socket, ca, servername: target.hostname, agent: false }, print)
  })
  tunnel.end()
}
