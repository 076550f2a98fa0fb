"""The style sheet of report.html.

Plots use the names of its colours: light and dark scheme, and paper, are chosen here alone.
"""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f5f6f8; --ink: #1d2430; --soft: #5a6475; --line: #d3d8e0;
  --in: #1f6fc4; --out: #b85c00; --bad: #c22f2f; --calm: #8a94a6; --good: #1c7c3c; --warn: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --card: #1d2129; --ink: #e6e9ef; --soft: #a3adbd; --line: #3a414d;
  --in: #6fb1ff; --out: #ffab5c; --bad: #ff8078; --calm: #8a94a6; --good: #6fd08c; --warn: #e5b95c; } }
@media print { :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb;
  --in: #1f6fc4; --out: #b85c00; --bad: #c22f2f; --calm: #777; --good: #1c7c3c; --warn: #8a6100; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem; } h3 { font-size: 1rem; margin: 1rem 0 0; }
p { margin: .3rem 0; } .soft, figcaption { color: var(--soft); } code { font-family: ui-monospace, monospace; font-size: .9em; }
header { border-bottom: 1px solid var(--line); padding-bottom: .8rem; }
.status { display: inline-block; padding: .05rem .6rem; border: 1.5px solid; border-radius: 1rem; font-weight: 600;
  margin-left: .6rem; font-size: .9rem; vertical-align: .2rem; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .6rem; margin: 1rem 0; padding: 0; }
.cards div { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .7rem; }
.cards dt { color: var(--soft); font-size: .82rem; }
.cards dd { margin: 0; font-size: 1.3rem; font-weight: 600; line-height: 1.3; }
.cards dd + dd { font-size: .82rem; font-weight: 400; color: var(--soft); }
figure { margin: .8rem 0 0; break-inside: avoid; } figure svg { display: block; width: 100%; height: auto; margin: .3rem 0; }
figure svg text { font-family: inherit; } figure svg image { image-rendering: pixelated; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; } @media (max-width: 40rem) { .pair { display: block; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .4rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .18rem .9rem .18rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } td { overflow-wrap: anywhere; } td.short { white-space: nowrap; }
details { margin: .2rem 0; } summary { cursor: pointer; color: var(--soft); font-size: .86rem; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
"""
