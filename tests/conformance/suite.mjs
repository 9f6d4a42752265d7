// One run of the suite against a cache, in a process of its own: the suite keeps its results in module state, so that a
// process can run it once.
//
//   suite.mjs SUITE BASE
//
// SUITE is the npm package 0.4.5 or a checkout of the current suite, which keeps its engine in test-engine/. Prints one
// JSON array of { area, id, kind, outcome, why }, of every test that applies to a proxy.
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

/** The suite's own classes of result, each as one word. */
const OUTCOMES = {
  '✅': 'pass',
  '⛔️': 'fail',
  '⚠️': 'fail',
  Y: 'yes',
  N: 'no',
  '🔹': 'setup',
  '⁉️': 'harness',
  '⚪️': 'dependency',
  '↻': 'retry',
  '-': 'untested'
}

const [suite, base] = process.argv.slice(2)
const load = async file => await import(pathToFileURL(path.join(suite, file)))
const isCheckout = fs.existsSync(path.join(suite, 'test-engine'))

// The suite talks on stdout; the result is all that counts there.
console.log = () => {}
const { areas, results, classify } = isCheckout ? await runCheckout() : await runPackage()
const tests = areas.flatMap(area => area.tests
  .filter(test => test.browser_only !== true)
  .map(test => ({
    area: area.id,
    id: test.id,
    kind: test.kind ?? 'required',
    outcome: outcome(classify(areas, test.id, results)[2], test.id),
    why: Array.isArray(results[test.id]) ? results[test.id].join(': ') : ''
  })))
fs.writeSync(process.stdout.fd, JSON.stringify(tests))
// Connections to the cache are still open, and would keep this process for as long as the cache keeps them.
process.exit(0)

async function runCheckout () {
  const areas = (await load('tests/index.mjs')).default
  const { runTests, getResults } = await load('test-engine/client/runner.mjs')
  const { determineTestResult } = await load('test-engine/lib/results.mjs')
  await runTests(areas, false, base)
  return { areas, results: getResults(), classify: determineTestResult }
}

async function runPackage () {
  // The one area that its index leaves out, and its own command line adds.
  const areas = [...(await load('tests/index.mjs')).default, (await load('tests/surrogate-control.mjs')).default]
  const { runTests, getResults } = await load('client/runner.mjs')
  const { determineTestResult } = await load('lib/display.mjs')
  const fetch = (await load('../node-fetch/lib/index.mjs')).default
  await runTests(areas, fetch, false, base)
  return { areas, results: getResults(), classify: determineTestResult }
}

function outcome (symbol, id) {
  if (!(symbol in OUTCOMES)) throw new Error(`${id}: the suite has a class of result unknown here: ${symbol}`)
  return OUTCOMES[symbol]
}
