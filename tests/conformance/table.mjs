// Writes docs/conformance.md from the recorded outcomes and what is said about them.
//
//   table.mjs            writes it
//   table.mjs --check    fails when it is not what would be written
//
// Both fail when something is not accounted for: an observed behaviour without a position, a required or optimal test
// that is not passed without an argument, a position or an argument about anything else, or a position that says
// something else than what was recorded.
import fs from 'node:fs'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

import { index, readJson, recorded, recordedNames } from './results.mjs'

const OURS = 'hardtack.json'
const OURS_WITH_COOKIES = 'hardtack-set-cookie-store.json'
const DOCUMENT = fileURLToPath(new URL('../../docs/conformance.md', import.meta.url))

const here = name => fileURLToPath(new URL(name, import.meta.url))
const positions = readJson(here('positions.json'))
const args = readJson(here('arguments.json'))
const { suite, tests } = index()
const ours = recorded(OURS)
const withCookies = recorded(OURS_WITH_COOKIES)
const peers = recordedNames()
  .filter(name => ![OURS, OURS_WITH_COOKIES].includes(name))
  .map(recorded)
  .sort((a, b) => passed(b, 'required') - passed(a, 'required'))

const faults = unaccounted()
const text = [
  head(), totals(), byArea(), notPassed(), observed(), method()
].flat().join('\n') + '\n'
if (!process.argv.includes('--check')) {
  fs.mkdirSync(new URL('../../docs/', import.meta.url), { recursive: true })
  fs.writeFileSync(DOCUMENT, text)
} else if (!fs.existsSync(DOCUMENT) || fs.readFileSync(DOCUMENT, 'utf8') !== text) {
  faults.push('docs/conformance.md is not what tests/conformance/table.mjs writes: run it')
}
for (const fault of faults) console.error(fault)
if (faults.length === 0) console.log(`docs/conformance.md accounts for ${Object.keys(tests).length} tests`)
process.exit(faults.length === 0 ? 0 : 1)

function kindOf (id) {
  return tests[id].split(' ')[0]
}

function areaOf (id) {
  return tests[id].split(' ')[1]
}

function hasPassed (results, id) {
  return ['pass', 'yes'].includes(results.outcomes[id])
}

function ofKind (...kinds) {
  return Object.keys(tests).filter(id => kinds.includes(kindOf(id)))
}

function passed (results, ...kinds) {
  return ofKind(...kinds).filter(id => hasPassed(results, id)).length
}

/** Everything that the data does not account for, as sentences. */
function unaccounted () {
  const found = []
  for (const results of [ours, withCookies, ...peers]) {
    if (results.suite !== suite) found.push(`${results.program}: measured with another suite than ${suite}`)
    const ids = Object.keys(results.outcomes)
    if (ids.sort().join() !== Object.keys(tests).sort().join()) found.push(`${results.program}: not the suite's tests`)
  }
  const answers = Object.assign({}, ...positions.map(group => group.tests))
  const stated = positions.flatMap(group => Object.keys(group.tests))
  for (const id of stated) {
    const twice = stated.filter(other => other === id).length > 1
    if (twice) found.push(`two positions on ${id}`)
    if (!(id in tests) || kindOf(id) !== 'check') found.push(`a position on ${id}, which is no observed behaviour`)
    else if (answers[id][0] !== ours.outcomes[id]) {
      found.push(`${id}: the position is "${answers[id][0]}", recorded is "${ours.outcomes[id]}"`)
    }
  }
  for (const id of ofKind('check').filter(id => !(id in answers))) found.push(`no position on ${id}`)
  const missed = ofKind('required', 'optimal').filter(id => !hasPassed(ours, id))
  for (const id of missed.filter(id => !(id in args))) found.push(`${id} is not passed, and nothing says why`)
  for (const id of Object.keys(args).filter(id => !missed.includes(id))) {
    found.push(`an argument about ${id}, which is passed or unknown`)
  }
  return found
}

function head () {
  return [
    '# Conformance',
    '',
    '<!-- Written by tests/conformance/table.mjs from the files beside it. Edit those. -->',
    '',
    'What hardtack passes of the [public suite of HTTP caching tests](https://github.com/http-tests/cache-tests) at commit',
    `\`${suite.slice(0, 7)}\`, beside other caches, and what it does where the suite only looks and RFC 9111 leaves a choice.`,
    `The suite has ${ofKind('required').length} **required** behaviours, ${ofKind('optimal').length} **optimal** ones (a cache that lacks`,
    `them is correct, but less useful) and ${ofKind('check').length} that it **observes** without a judgement.`,
    ''
  ]
}

function totals () {
  const row = (results, name) => [
    name,
    results.version,
    passed(results, 'required'),
    passed(results, 'optimal'),
    passed(results, 'check'),
    results.earlier ?? '',
    results.date
  ]
  return [
    '## Totals',
    '',
    ...table(
      ['Cache', 'Version', `Required (of ${ofKind('required').length})`, `Optimal (of ${ofKind('optimal').length})`,
        `Observed: yes (of ${ofKind('check').length})`, 'Earlier measurement', 'Date'],
      [
        row(ours, '**hardtack**'),
        row(withCookies, '**hardtack**, `set_cookie = "store"`'),
        ...peers.map(peer => row(peer, peer.program))
      ]
    ),
    '',
    'A test whose dependencies are not passed does not count as passed, by the suite\'s own rule. "Yes" to an observed behaviour',
    'is no merit. "Earlier measurement" is required/optimal as the peers came out when hardtack was designed; where the number',
    'measured now is another, the last section says why.',
    ''
  ]
}

function byArea () {
  const areas = [...new Set(Object.keys(tests).map(areaOf))]
  const binding = area => ofKind('required', 'optimal').filter(id => areaOf(id) === area)
  const rows = areas.filter(area => binding(area).length > 0).map(area => {
    const count = results => binding(area).filter(id => hasPassed(results, id)).length
    return [`\`${area}\``, binding(area).length, count(ours), ...peers.map(count)]
  })
  return [
    '## By area',
    '',
    'Required and optimal tests together.',
    '',
    ...table(['Area', 'Tests', '**hardtack**', ...peers.map(peer => peer.program)], rows),
    ''
  ]
}

function notPassed () {
  const missed = ofKind('required', 'optimal').filter(id => !hasPassed(ours, id))
  return [
    '## Not passed, and why',
    '',
    ...(missed.length === 0 ? ['Nothing.', ''] : []),
    ...missed.flatMap(id => [`- \`${id}\` (${kindOf(id)}): ${args[id] ?? ''}`, ''])
  ]
}

function observed () {
  return [
    '## Observed behaviours',
    '',
    'What the suite asks, and our position. An answer in **bold** is one where the caches measured differ. "setup": the',
    'preparation of the test did not come about; "depends": a test it builds on is not passed; "retry": the origin was asked',
    'twice.',
    '',
    ...positions.flatMap(({ behaviour, position, peers: others, tests: asked }) => [
      `### ${behaviour}`,
      '',
      others ? `${position} ${others}` : position,
      '',
      ...table(['Observed', 'hardtack', ...peers.map(peer => peer.program)],
        Object.entries(asked).map(([id, [, asks]]) => [`${asks}<br>\`${id}\``, ...answersTo(id)])),
      ''
    ])
  ]
}

/** Ours and the peers', ours in bold where somebody answers the opposite. */
function answersTo (id) {
  const word = results => ({ dependency: 'depends' })[results.outcomes[id]] ?? results.outcomes[id] ?? ''
  const words = [ours, ...peers].map(word)
  const differ = words.includes('yes') && words.includes('no')
  return differ ? [`**${words[0]}**`, ...words.slice(1)] : words
}

function method () {
  return [
    '## How the numbers were made',
    '',
    'The suite ran at the commit above, through each cache as a reverse proxy on loopback in front of the suite\'s own origin, one',
    'cache at a time, with its own classifier of results. Each file in `tests/conformance/results` has one outcome a line, so a',
    'changed behaviour is a changed line. hardtack ran with its defaults. The outcomes of three runs in a row were the same.',
    '',
    'To repeat it, with a checkout of the suite in DIR whose dependencies are installed (`npm ci`):',
    '',
    '```sh',
    'tests/conformance/run.sh --suite DIR --times 3                         # ours, against the record',
    'tests/conformance/run.sh --suite DIR --pass default --record FILE      # ours, recorded anew',
    'tests/conformance/run.sh --suite DIR --through http://127.0.0.1:8001 --origin-port 8000 \\',
    '  --program Squid --version 5.7 --record FILE                          # any cache that forwards to port 8000',
    'node tests/conformance/table.mjs                                       # this document',
    '```',
    '',
    'CI runs the npm package `http-cache-tests` 0.4.5, an older cut of the suite, against a release build, in two passes: with the',
    'defaults and with `set_cookie = "store"`. `tests/conformance/required.txt` lists what must pass, `not-required.txt` what need',
    'not and why. CI also fails when this document is not what its data gives, or when a position is missing.',
    '',
    'The peers were configured as an operator would for caching by the RFC:',
    '',
    ...peers.map(peer => `- ${peer.program} ${peer.version}: ${peer.configuration ?? ''}`)
  ]
}

function table (header, rows) {
  const line = cells => `| ${cells.join(' | ')} |`
  return [line(header), line(header.map((_, column) => column === 0 ? '---' : ':-:')), ...rows.map(line)]
}
