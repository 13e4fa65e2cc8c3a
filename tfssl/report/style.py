"""The report's looks: one style sheet for light, dark, phone and paper."""

LIGHT = {
    "paper": "#f6f7f9", "card": "#ffffff", "ink": "#1b1f24", "muted": "#575f6a",
    "line": "#dde1e7", "track": "#eef0f3", "base": "#7b838e", "link": "#1f5fa8",
    "s0": "#2f6db5", "s1": "#c2571a", "s2": "#2e7d4f", "s3": "#b3266a", "s4": "#8a4fbf",
    "s5": "#8c6a1f", "s6": "#0f7f89", "s7": "#62666d", "s8": "#cf443b", "s9": "#5a7711",
}  # fmt: skip
DARK = {
    "paper": "#121519", "card": "#1b1f25", "ink": "#e8eaed", "muted": "#a6afba",
    "line": "#333a43", "track": "#262c34", "base": "#8d96a2", "link": "#8bbcf5",
    "s0": "#7fb3f0", "s1": "#f0a070", "s2": "#7fce9d", "s3": "#f28fbd", "s4": "#c9a3f2",
    "s5": "#d9b96a", "s6": "#66d0d8", "s7": "#b5bac2", "s8": "#ff8f86", "s9": "#b7d35a",
}  # fmt: skip
SERIES = 10  # colours; the next ten repeat them as squares


def _variables(colours):
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_SERIES = "".join(
    f".s{i}{{--c:var(--s{i % SERIES})}}" for i in range(2 * SERIES)
)  # fmt: skip
_SQUARES = ",".join(f".points.s{i}" for i in range(SERIES, 2 * SERIES))

CSS = f"""
:root{{color-scheme:light;{_variables(LIGHT)}}}
@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{_variables(DARK)}}}}}
{_SERIES}
.base{{--c:var(--base)}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%;text-size-adjust:100%}}
body{{margin:0;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}}
main,header,footer{{max-width:1120px;margin:0 auto;padding:0 20px}}
header{{padding-top:36px}}
footer{{padding-bottom:48px;color:var(--muted);font-size:.875rem}}
h1{{text-wrap:balance;font-size:1.9rem;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}}
h2{{font-size:1.2rem;line-height:1.3;margin:0 0 4px}}
h3{{font-size:1rem;margin:0 0 6px;font-weight:600}}
section>:last-child,section>div:last-child>p:last-child{{margin-bottom:0}}
p{{margin:0 0 12px;max-width:72ch}}
a{{color:var(--link)}}
.lead{{color:var(--muted);margin-bottom:18px}}
.note{{color:var(--muted);font-size:.9rem}}
nav ul{{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:0 0 22px;padding:0;
 font-size:.92rem}}
section{{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:22px;
 margin:0 0 20px}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:14px;
 margin:0 0 20px}}
.tile{{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;
 min-width:0}}
.tile b{{display:block;font-size:1.55rem;line-height:1.25;font-weight:650;
 font-variant-numeric:tabular-nums}}
.tile span{{display:block;color:var(--muted);font-size:.875rem}}
.grid-of{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));
 gap:24px 28px;margin-top:14px}}
.grid-of>*{{min-width:0}}
figure{{margin:0;min-width:0}}
figcaption{{font-size:.9rem;color:var(--muted);margin-top:4px}}
svg{{display:block;width:100%;height:auto;max-width:440px;overflow:visible}}
svg text{{font-size:12.5px;fill:var(--muted);font-variant-numeric:tabular-nums}}
svg .name{{font-size:14px;fill:var(--ink)}}
svg .value{{font-size:14px;fill:var(--ink);font-weight:600}}
.grid{{stroke:var(--line);stroke-width:1;fill:none}}
.line{{stroke:var(--c);stroke-width:2;fill:none;stroke-linejoin:round;stroke-linecap:round}}
.line.dashed{{stroke-dasharray:5 4}}
.dot{{fill:var(--c)}}
.band{{fill:var(--c);fill-opacity:.16}}
.track{{fill:var(--track)}}
.bar{{fill:var(--c)}}
.whisker{{stroke:var(--ink);stroke-width:1.5;fill:none}}
.points{{stroke:var(--c);stroke-width:5.5;stroke-linecap:round;fill:none;stroke-opacity:.8}}
{_SQUARES}{{stroke-linecap:square;stroke-width:4.5}}
.map{{border:1px solid var(--line);border-radius:8px;max-width:560px}}
.map svg{{max-width:none}}
.maps{{grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr))}}
.verdicts{{margin:0 0 10px;padding-left:1.2em;max-width:96ch}}
.legend{{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:10px 0 4px;
 font-size:.9rem}}
.legend li{{display:flex;align-items:center;gap:7px;min-width:0}}
.key{{flex:none;width:12px;height:12px;border-radius:50%;background:var(--c)}}
.key.square{{border-radius:0}}
.sheet{{display:block;max-width:100%;height:auto;background:#fff;border-radius:8px;
 border:1px solid var(--line)}}
.scroll{{overflow-x:auto;margin:10px 0;max-width:100%}}
.scroll:focus-visible{{outline:2px solid var(--link);outline-offset:2px}}
table{{border-collapse:collapse;overflow-wrap:normal;font-size:.92rem;
 font-variant-numeric:tabular-nums;min-width:min(100%,440px)}}
caption{{text-align:left;color:var(--muted);font-size:.9rem;padding-bottom:6px}}
th,td{{text-align:left;padding:7px 14px 7px 0;border-bottom:1px solid var(--line);
 vertical-align:top}}
th{{font-weight:600}}
thead th{{color:var(--muted);font-size:.85rem;white-space:nowrap}}
td.n{{white-space:nowrap}}
td.t{{min-width:11em}}
td small{{color:var(--muted);display:block;font-size:.8rem}}
.best{{font-weight:700}}
.best::after{{content:" ★";color:var(--s1)}}
pre{{background:var(--track);border-radius:8px;padding:12px 14px;margin:8px 0 14px;overflow-x:auto;
 font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
 max-width:100%}}
code{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
 font-size:.92em}}
.near{{display:grid;grid-template-columns:repeat(var(--columns),minmax(0,1fr));gap:6px;
 list-style:none;margin:0 0 10px;padding:0;max-width:calc(var(--columns)*84px)}}
.near li{{min-width:0;font-size:.74rem;line-height:1.25;color:var(--muted);text-align:center;
 font-variant-numeric:tabular-nums}}
.near img{{display:block;width:100%;height:auto;aspect-ratio:1;border-radius:5px;margin-bottom:2px;
 border:2px solid transparent}}
.near .query img{{border-color:var(--s1)}}
.near.pixels img{{image-rendering:pixelated}}
.near .query{{color:var(--ink);font-weight:600}}
.quotes{{margin:0 0 16px;padding-left:1.4em;font-size:.92rem}}
@media(max-width:560px){{
 main,header,footer{{padding:0 12px}}
 header{{padding-top:22px}}
 section{{padding:16px 14px;border-radius:10px}}
 h1{{text-wrap:balance;font-size:1.5rem}}
 .tiles{{grid-template-columns:1fr 1fr;gap:10px}}
 .tile b{{font-size:1.25rem}}
}}
@media print{{
 body{{background:#fff;font-size:11pt}}
 section,.tile{{border-color:#bbb}}
 figure,.tile,.near,tr{{break-inside:avoid}}
 h2,h3{{break-after:avoid}}
 nav{{display:none}}
 pre{{white-space:pre-wrap}}
 *{{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
}}
"""
