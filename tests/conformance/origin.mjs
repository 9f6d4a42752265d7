// Starts the suite's own origin on a free loopback port. It listens on every address when left alone.
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const suite = process.argv[2]
const listen = http.Server.prototype.listen
http.Server.prototype.listen = function (_port, ...rest) {
  return listen.call(this, 0, '127.0.0.1', ...rest)
}

process.env.npm_config_protocol = 'http'
// Only the base of relative URLs; the port is what `listen` above makes it.
process.env.npm_config_port = '80'
process.env.npm_config_pidfile = os.devNull
await import(pathToFileURL(path.join(suite, 'server/server.mjs')))
