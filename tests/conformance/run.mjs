// Runs the suite through a gateway and holds the result against a list of tests that must pass.
//
//   run.mjs --binary FILE --suite DIR --required FILE [--update]
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

const DEADLINE_MS = 15_000
const { values: options } = parseArgs({
  options: {
    binary: { type: 'string' },
    suite: { type: 'string' },
    required: { type: 'string' },
    update: { type: 'boolean', default: false }
  }
})
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'hardtack-conformance-'))
const children = []
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  fs.rmSync(scratch, { recursive: true, force: true })
})

const origin = await startOrigin()
const gateway = await startGateway(origin)
await carriesWrites(gateway)
const began = Date.now()
const tests = await runSuite(gateway)
console.log(summary(tests), `in ${Math.round((Date.now() - began) / 1000)} s`)
process.exit(options.update ? update(tests) : compare(tests))

/** Starts the suite's origin; resolves to its base URL. */
async function startOrigin () {
  const script = fileURLToPath(new URL('origin.mjs', import.meta.url))
  const child = start(process.execPath, ['--no-warnings', script, options.suite], { cwd: options.suite })
  let said = ''
  child.stdout.on('data', chunk => { said += chunk })
  return until('the origin listens', () => said.match(/Listening on (http:\/\/[\d.:]+)/)?.[1])
}

/** Starts the gateway as a reverse route to the origin; resolves to its base URL. */
async function startGateway (origin) {
  const data = path.join(scratch, 'data')
  const config = path.join(scratch, 'gateway.toml')
  fs.writeFileSync(config, [
    '[listen]',
    'proxy = "127.0.0.1:0"',
    'admin = "127.0.0.1:0"',
    '[storage]',
    `dir = ${JSON.stringify(data)}`,
    'disk_free_min = "1KiB"',
    '[cache]',
    // Only this older cut of the suite tests Surrogate-Control; it is off by default.
    'targeted_fields = ["surrogate-control", "cdn-cache-control"]',
    '[telemetry]',
    'log = { level = "warn" }',
    ''
  ].join('\n'))
  const child = start(options.binary, ['run', '--config', config, '--upstream', origin])
  child.stdout.resume()
  return until('the gateway serves', () => {
    if (child.exitCode !== null) throw new Error(`the gateway ended with ${child.exitCode}`)
    const announced = readJson(path.join(data, 'gateway.json'))
    return announced && `http://${announced.proxy[0]}`
  })
}

/** A PUT must get through to the origin, or the suite cannot set up a single test. */
async function carriesWrites (base) {
  const response = await fetch(`${base}/config/preflight-${process.pid}`, { method: 'PUT', body: '[]' })
  if (response.status !== 201) {
    throw new Error(`a PUT through the gateway was answered ${response.status}: ${await response.text()}`)
  }
}

/** Runs every test that applies to a proxy; resolves to [{ id, kind, passed, why }]. */
async function runSuite (base) {
  const load = file => import(pathToFileURL(path.join(options.suite, file)))
  const suites = [...(await load('tests/index.mjs')).default, (await load('tests/surrogate-control.mjs')).default]
  const { runTests, getResults } = await load('client/runner.mjs')
  const { determineTestResult } = await load('lib/display.mjs')
  const fetch = (await load('../node-fetch/lib/index.mjs')).default

  // The suite talks on stdout; this script's own lines are what counts there.
  const log = console.log
  console.log = () => {}
  await runTests(suites, fetch, false, base)
  console.log = log

  const results = getResults()
  return suites
    .flatMap(suite => suite.tests)
    .filter(test => test.browser_only !== true)
    .map(test => ({
      id: test.id,
      kind: test.kind ?? 'required',
      // The suite's own classes of success; a test whose dependencies failed is not one.
      passed: ['✅', 'Y'].includes(determineTestResult(suites, test.id, results)[2]),
      why: Array.isArray(results[test.id]) ? results[test.id].join(': ') : ''
    }))
}

function summary (tests) {
  const count = kind => {
    const those = tests.filter(test => test.kind === kind)
    return `${kind} ${those.filter(test => test.passed).length}/${those.length}`
  }
  return ['required', 'optimal', 'check'].map(count).join(', ')
}

/** Holds the result against the list; the exit code. */
function compare (tests) {
  const listed = fs.readFileSync(options.required, 'utf8').split('\n').filter(line => line && !line.startsWith('#'))
  if (listed.length === 0) throw new Error(`${options.required} lists no tests`)
  const byId = new Map(tests.map(test => [test.id, test]))
  const lost = listed.filter(id => !byId.get(id)?.passed)
  for (const id of lost) {
    const test = byId.get(id)
    console.error(`must pass, and does not: ${id} (${test?.kind ?? 'unknown to the suite'}) ${test?.why ?? ''}`)
  }
  const gained = mustPass(tests).filter(id => !listed.includes(id))
  if (gained.length > 0) console.log(`passed, and not listed yet (--update): ${gained.join(' ')}`)
  console.log(`${listed.length - lost.length} of ${listed.length} listed tests passed`)
  return lost.length === 0 ? 0 : 1
}

/** Writes the list anew. */
function update (tests) {
  const head = [
    '# Tests of http-cache-tests 0.4.5 that must pass, required and optimal, sorted by id.',
    '# Made by run.sh --update; a line that goes away needs a reason in the commit that takes it away.'
  ]
  fs.writeFileSync(options.required, [...head, ...mustPass(tests), ''].join('\n'))
  for (const test of tests.filter(test => test.kind !== 'check' && !test.passed)) {
    console.log(`not passed: ${test.id} (${test.kind}) ${test.why}`)
  }
  return 0
}

function mustPass (tests) {
  return tests.filter(test => test.kind !== 'check' && test.passed).map(test => test.id).sort()
}

function start (command, args, more = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], ...more })
  children.push(child)
  return child
}

async function until (what, probe) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end; await delay(20)) {
    const found = probe()
    if (found) return found
  }
  throw new Error(`not within ${DEADLINE_MS} ms: ${what}`)
}

function readJson (file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}
