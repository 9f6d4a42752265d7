// Starts the suite's own origin on loopback, on a free port unless one is named. It listens on every address when left
// alone.
//
//   origin.mjs SUITE [PORT]
import fs from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const [suite, port = '0'] = process.argv.slice(2)
const listen = http.Server.prototype.listen
http.Server.prototype.listen = function (_port, ...rest) {
  return listen.call(this, Number(port), '127.0.0.1', ...rest)
}

process.env.npm_config_protocol = 'http'
// Only the base of relative URLs; the port is what `listen` above makes it.
process.env.npm_config_port = '80'
process.env.npm_config_pidfile = os.devNull
const engine = ['test-engine', '.'].find(directory => fs.existsSync(path.join(suite, directory, 'server')))
await import(pathToFileURL(path.join(suite, engine, 'server/server.mjs')))
