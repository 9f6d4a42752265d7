// Runs the suite through a gateway, pass by pass, and holds the outcomes against what is known to pass. See run.sh.
import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { differences, idsIn, readJson, recorded, writeIndex, writeResults } from './results.mjs'

const DEADLINE_MS = 15_000

/** What each pass sets in `[cache]`, besides what the suite itself needs, and the file of tests it adds. */
const PASSES = {
  default: { cache: [], lists: ['required.txt'], record: 'hardtack.json' },
  'set-cookie-store': {
    cache: ['set_cookie = "store"'],
    lists: ['required.txt', 'required-set-cookie-store.txt'],
    record: 'hardtack-set-cookie-store.json'
  }
}

const { values: options } = parseArgs({
  options: {
    binary: { type: 'string' },
    suite: { type: 'string' },
    pass: { type: 'string' },
    times: { type: 'string', default: '1' },
    update: { type: 'boolean', default: false },
    record: { type: 'string' },
    through: { type: 'string' },
    'origin-port': { type: 'string', default: '0' },
    program: { type: 'string' },
    version: { type: 'string' }
  }
})
const here = name => fileURLToPath(new URL(name, import.meta.url))
const isCheckout = fs.existsSync(path.join(options.suite, 'test-engine'))
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'hardtack-conformance-'))
const children = new Set()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  fs.rmSync(scratch, { recursive: true, force: true })
})

let failed = false
for (const name of passes()) {
  const tests = await sameEachTime(name)
  if (options.record) record(name, tests)
  else if (options.update) update(tests)
  else if (options.through) listNotPassed(tests)
  else if (isCheckout) holdAgainstRecord(name, tests)
  else holdAgainstLists(name, tests)
}
process.exit(failed ? 1 : 0)

/** The names of the passes to run. */
function passes () {
  if (options.pass && !(options.pass in PASSES)) throw new Error(`unknown pass: ${options.pass}`)
  if (options.through || options.update) return ['default']
  if (options.record && !options.pass) throw new Error('--record needs --pass: one file, one pass')
  return options.pass ? [options.pass] : Object.keys(PASSES)
}

/** Runs a pass as often as asked; resolves to its outcomes. What differs between two runs is a failure. */
async function sameEachTime (name) {
  const times = Number(options.times)
  if (!(times >= 1)) throw new Error(`--times ${options.times} is no number of runs`)
  let first
  for (let run = 1; run <= times; run++) {
    const tests = await runPass(name)
    first ??= tests
    for (const { id, one, other } of differences(outcomes(first), outcomes(tests))) {
      fail(`${name}: ${id} was ${one} in run 1 and ${other} in run ${run}`)
    }
  }
  return first
}

/** One run with an origin, a store and a process of its own. */
async function runPass (name) {
  const origin = await startOrigin()
  const cache = options.through ? { base: options.through } : await startGateway(origin.base, PASSES[name])
  await carriesWrites(cache.base)
  const began = Date.now()
  const tests = await runSuite(cache.base)
  for (const child of [cache.child, origin.child]) if (child) await stop(child)
  console.log(`${options.program ?? name}: ${summary(tests)} in ${Math.round((Date.now() - began) / 1000)} s`)
  return tests
}

/** Starts the suite's origin; resolves to its base URL. */
async function startOrigin () {
  const child = start(process.execPath, ['--no-warnings', here('origin.mjs'), options.suite, options['origin-port']],
    { cwd: options.suite })
  let said = ''
  child.stdout.on('data', chunk => { said = (said + chunk).slice(-1000) })
  const base = await until('the origin listens', child, () => said.match(/Listening on (http:\/\/[\d.:]+)/)?.[1])
  return { child, base }
}

/** Starts the gateway as a reverse route to the origin; resolves to its base URL. */
async function startGateway (origin, pass) {
  const own = fs.mkdtempSync(path.join(scratch, 'gateway-'))
  const data = path.join(own, 'data')
  const config = path.join(own, 'gateway.toml')
  fs.writeFileSync(config, [
    '[listen]',
    'proxy = "127.0.0.1:0"',
    'admin = "127.0.0.1:0"',
    '[storage]',
    `dir = ${JSON.stringify(data)}`,
    'disk_free_min = "1KiB"',
    '[cache]',
    // Only the older cut of the suite tests Surrogate-Control; it is off by default.
    ...(isCheckout ? [] : ['targeted_fields = ["surrogate-control", "cdn-cache-control"]']),
    ...pass.cache,
    '[telemetry]',
    'log = { level = "warn" }',
    ''
  ].join('\n'))
  const child = start(options.binary, ['run', '--config', config, '--upstream', origin])
  child.stdout.resume()
  const base = await until('the gateway serves', child, () => {
    const announced = readJson(path.join(data, 'gateway.json'))
    return announced && `http://${announced.proxy[0]}`
  })
  return { child, base }
}

/** A PUT must get through to the origin, or the suite cannot set up a single test. */
async function carriesWrites (base) {
  const response = await fetch(`${base}/config/preflight-${Date.now()}`, { method: 'PUT', body: '[]' })
  if (response.status !== 201) {
    throw new Error(`a PUT through the cache was answered ${response.status}: ${await response.text()}`)
  }
}

/** Runs every test that applies to a proxy; resolves to [{ area, id, kind, outcome, why }]. */
async function runSuite (base) {
  const child = start(process.execPath, ['--no-warnings', here('suite.mjs'), options.suite, base],
    { cwd: options.suite })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', chunk => { said += chunk })
  await new Promise(resolve => child.once('close', resolve))
  if (child.exitCode !== 0) throw new Error(`the suite ended with ${child.exitCode ?? child.signalCode}`)
  return JSON.parse(said)
}

function summary (tests) {
  const count = kind => {
    const those = tests.filter(test => test.kind === kind)
    return `${kind} ${those.filter(hasPassed).length}/${those.length}`
  }
  return ['required', 'optimal', 'check'].map(count).join(', ')
}

/** The suite's own classes of success; a test whose dependencies failed is not one. */
function hasPassed (test) {
  return ['pass', 'yes'].includes(test.outcome)
}

function outcomes (tests) {
  return Object.fromEntries(tests.map(test => [test.id, test.outcome]))
}

/** The npm package: every listed test passes, and every other one is named with the reason why it need not. */
function holdAgainstLists (name, tests) {
  const listed = PASSES[name].lists.flatMap(list => idsIn(here(list)))
  const excused = idsIn(here('not-required.txt'))
  const byId = new Map(tests.map(test => [test.id, test]))
  const lost = listed.filter(id => !(byId.has(id) && hasPassed(byId.get(id))))
  for (const id of lost) {
    const test = byId.get(id)
    fail(`${name}: must pass, and does not: ${id} (${test?.kind ?? 'unknown to the suite'}) ${test?.why ?? ''}`)
  }
  const binding = tests.filter(test => test.kind !== 'check')
  for (const { id, kind, outcome, why } of binding.filter(test => !listed.includes(test.id))) {
    if (outcome === 'pass') console.log(`${name}: passed, and not listed yet (--update): ${id}`)
    else if (!excused.includes(id)) fail(`${name}: in no list: ${id} (${kind}) ${why}`)
  }
  for (const id of excused.filter(id => !byId.has(id))) {
    fail(`not-required.txt names ${id}, which the suite does not have`)
  }
  console.log(`${name}: ${listed.length - lost.length} of ${listed.length} listed tests passed`)
}

/** A checkout: every outcome is the one that docs/conformance.md reports. */
function holdAgainstRecord (name, tests) {
  listNotPassed(tests)
  const record = recorded(PASSES[name].record)
  for (const { id, one, other } of differences(record.outcomes, outcomes(tests))) {
    fail(`${name}: ${id} is ${other}; recorded is ${one}`)
  }
}

function listNotPassed (tests) {
  for (const { id, kind, outcome, why } of tests.filter(test => test.kind !== 'check' && !hasPassed(test))) {
    console.log(`not passed: ${id} (${kind}, ${outcome}) ${why}`)
  }
}

/** Writes what table.mjs reads. */
function record (name, tests) {
  if (!isCheckout) throw new Error('only the outcomes of a checkout (--suite) are recorded')
  const git = (...words) => execFileSync('git', ['-C', options.suite, ...words], { encoding: 'utf8' }).trim()
  const commit = git('rev-parse', 'HEAD')
  writeIndex({ commit, tests })
  writeResults(options.record, {
    program: options.program ?? 'hardtack',
    version: options.version ?? versionOf(options.binary),
    date: new Date().toISOString().slice(0, 10),
    suite: commit,
    outcomes: outcomes(tests)
  })
  listNotPassed(tests)
}

function versionOf (binary) {
  return execFileSync(binary, ['--version'], { encoding: 'utf8' }).trim().split(' ').at(-1)
}

/** Writes the list of the npm package's tests anew. */
function update (tests) {
  const head = [
    '# Tests of http-cache-tests 0.4.5 that must pass, required and optimal, sorted by id. What need not pass, and why, is',
    '# in not-required.txt; what the pass with set_cookie = "store" adds, in required-set-cookie-store.txt.',
    '# Made by run.sh --update; a line that goes away needs a reason in the commit that takes it away.'
  ]
  const passed = tests.filter(test => test.kind !== 'check' && hasPassed(test)).map(test => test.id).sort()
  fs.writeFileSync(here('required.txt'), [...head, ...passed, ''].join('\n'))
  listNotPassed(tests)
}

function fail (message) {
  failed = true
  console.error(message)
}

function start (command, args, more = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], ...more })
  children.add(child)
  child.once('close', () => children.delete(child))
  return child
}

async function stop (child) {
  if (!children.has(child)) return
  const closed = new Promise(resolve => child.once('close', resolve))
  child.kill('SIGKILL')
  await closed
}

async function until (what, child, probe) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end; await delay(20)) {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode} before ${what}`)
    const found = probe()
    if (found) return found
  }
  throw new Error(`not within ${DEADLINE_MS} ms: ${what}`)
}
