/** The page at `/`: what this is and how to go on. It runs no script, and nothing on it comes from outside. */

export const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#0e1219"/><path d="M16 6l9 4v6c0 5-4 8-9 10-5-2-9-5-9-10v-6z" fill="none" stroke="#7cb0ff" stroke-width="2.4" stroke-linejoin="round"/><circle cx="16" cy="16" r="3.2" fill="#43d3a2"/></svg>`

export const STYLE = `:root{color-scheme:dark light;--surface:#090c11;--raised:#0e1219;--line:#1b2330;--text:#e8ecf2;--quiet:#abb5c4;--faint:#8490a2;--accent:#7cb0ff;--focus:#9cc4ff;--good:#43d3a2}
@media (prefers-color-scheme:light){:root{--surface:#f6f8fb;--raised:#ffffff;--line:#d5dce6;--text:#131a24;--quiet:#435065;--faint:#5a677c;--accent:#1f5fd0;--focus:#2f6fe0;--good:#08724f}}
*{box-sizing:border-box}
body{margin:0;background:var(--surface);color:var(--text);font:15px/1.6 Inter,system-ui,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:760px;margin:0 auto;padding:64px 24px}
header{display:flex;gap:12px;align-items:center;margin-bottom:8px}
header img{width:32px;height:32px}
h1{font-size:20px;line-height:1.3;margin:0;font-weight:600}
h2{font-size:13px;margin:32px 0 8px;font-weight:600}
p{margin:0 0 12px;color:var(--quiet);max-width:64ch}
.state{display:inline-flex;gap:8px;align-items:center;font-size:12.5px;color:var(--quiet)}
.state::before{content:"";width:8px;height:8px;border-radius:50%;background:var(--good)}
dl{margin:0;border-top:1px solid var(--line)}
dl>div{display:grid;grid-template-columns:minmax(0,11fr) minmax(0,9fr);align-items:baseline;gap:4px 20px;padding:8px 0;border-bottom:1px solid var(--line)}
dt{font:12.5px/1.6 "JetBrains Mono",ui-monospace,monospace;font-variant-ligatures:none;overflow-wrap:anywhere}
dd{margin:0;color:var(--quiet);font-size:13px}
code{font:12.5px "JetBrains Mono",ui-monospace,monospace;font-variant-ligatures:none}
a{color:var(--accent);text-underline-offset:3px}
a:focus-visible{outline:2px solid var(--focus);outline-offset:3px;border-radius:3px}
@media (max-width:560px){main{padding:32px 16px}dl>div{grid-template-columns:1fr}}
`

const COMMANDS: readonly (readonly [string, string])[] = [
  ['cordon incident ls', 'What is open, and what is contained.'],
  ['cordon incident get INC-1', 'What happened, why it hangs together, and what to type next.'],
  ['cordon incident timeline INC-1', 'Everything, in order.'],
  ['cordon proc kill ENTITY --reason WHY --wait', 'End a process. You sign it with your own key.'],
  ['cordon host ls', 'Which hosts are watched, by what, and whether each one is heard.'],
  ['cordon event tail', 'What the hosts report, as it comes in.'],
]

export function pageAt(origin: string): string {
  const address = escapeHtml(origin)
  const first = [
    `cordon auth login --url ${origin}`,
    'Sign in. The first time with the code that the controller printed: --first CODE.',
  ] as const
  const rows = [first, ...COMMANDS]
    .map(([command, what]) => `<div><dt>${escapeHtml(command)}</dt><dd>${escapeHtml(what)}</dd></div>`)
    .join('\n')
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cordon controller</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/cordon.css">
</head>
<body>
<main>
<header><img src="/icon.svg" alt=""><h1>Cordon controller</h1></header>
<p class="state">This controller is running at ${address}</p>
<p>Cordon watches a fleet of hosts, groups what it detects into incidents, and carries out what operators sign: on the host, with proof. The console in the browser is not built here: <code>npm run build</code> makes it, and the next start serves it. Operators work with the program <code>cordon</code>; from a checkout that is <code>npm run --silent cordon --</code> and the rest of the command.</p>
<h2>First commands</h2>
<dl>
${rows}
</dl>
<h2>For programs</h2>
<p>The API is described by <a href="/api/openapi.json">OpenAPI 3.1</a>. It takes and answers JSON under <code>/api/v1</code>; <a href="/api/v1/health">health</a> needs no sign-in.</p>
</main>
</body>
</html>
`
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
