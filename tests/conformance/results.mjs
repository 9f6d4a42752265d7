// The recorded outcomes: one file for each program in results/, and the index of the suite's tests beside them.
//
// A line for each test, sorted, so that a difference is read as one.
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'

const directory = new URL('results/', import.meta.url)
const INDEX = fileURLToPath(new URL('index.json', directory))

/** The file in results/ with this name: { program, version, date, suite, outcomes, … }. */
export function recorded (name) {
  const file = fileURLToPath(new URL(name, directory))
  const results = readJson(file)
  if (!results) throw new Error(`${file} holds no results`)
  return results
}

/** The names of the files in results/. */
export function recordedNames () {
  return fs.readdirSync(directory).filter(name => name.endsWith('.json') && name !== 'index.json').sort()
}

/** The suite's tests, in its own order: { suite, tests: { id: "kind area" } }. */
export function index () {
  return readJson(INDEX) ?? { tests: {} }
}

/** Writes the index of the suite at `commit`. */
export function writeIndex ({ commit, tests }) {
  const entries = Object.fromEntries(tests.map(({ id, kind, area }) => [id, `${kind} ${area}`]))
  fs.writeFileSync(INDEX, JSON.stringify({ suite: commit, tests: entries }, null, 2) + '\n')
}

/** Writes a file of results; what an earlier one says beside the outcomes, and nobody measures, stays. */
export function writeResults (file, results) {
  const sorted = Object.fromEntries(Object.entries(results.outcomes).sort(([a], [b]) => a < b ? -1 : 1))
  const all = { ...readJson(file), ...results }
  delete all.outcomes
  fs.writeFileSync(file, JSON.stringify({ ...all, outcomes: sorted }, null, 2) + '\n')
}

/** The tests whose outcomes differ: [{ id, one, other }]. */
export function differences (ones, others) {
  const ids = [...new Set([...Object.keys(ones), ...Object.keys(others)])].sort()
  return ids
    .map(id => ({ id, one: ones[id] ?? 'unknown', other: others[id] ?? 'unknown' }))
    .filter(({ one, other }) => one !== other)
}

/** The ids in a list: one a line, comments after `#`. */
export function idsIn (file) {
  const ids = fs.readFileSync(file, 'utf8').split('\n').map(line => line.replace(/#.*/, '').trim()).filter(Boolean)
  if (ids.length === 0) throw new Error(`${file} lists no tests`)
  return ids
}

/** What a JSON file holds; undefined where it cannot be read or parsed (yet). */
export function readJson (file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}
