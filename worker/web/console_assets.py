"""Style and script of the console. Both are inline and named by digest in the page's CSP."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#16202c;--dim:#5d6b7a;--line:#e2e6eb;
--accent:#2f6fde;--safe:#1a7f4e;--unsafe:#c2304a;--undecided:#9a6300;--tint:#eef3fc;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(prefers-color-scheme:dark){:root{--bg:#0e1319;--card:#161d26;--ink:#e4eaf1;--dim:#93a1b1;
--line:#263140;--accent:#7aa7f7;--safe:#4cc38a;--unsafe:#ff7a90;--undecided:#f0b44c;--tint:#1b2634}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header,main{max-width:1280px;margin:0 auto;padding:0 20px}
header{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center;padding-top:20px}
h1{font-size:19px;margin:0;letter-spacing:-.01em}
h2{font-size:14px;margin:26px 0 8px;font-weight:600}
h2 small,.dim{color:var(--dim);font-weight:400}
.pill{border-radius:99px;padding:2px 11px;font-size:13px;font-weight:600;border:1px solid}
.safe,.ok{color:var(--safe)}.unsafe,.bad{color:var(--unsafe)}.undecided,.warn{color:var(--undecided)}
.tiles{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:12px;
margin-top:18px}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 14px;min-width:0}
.tile b{display:block;font-size:25px;line-height:1.25;font-weight:600;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.tile span,.tile i{display:block;font-size:13px;font-style:normal;color:var(--dim)}
.tile svg{display:block;width:100%;margin-top:6px}.tile .spark{height:30px}
.tile .bar{margin-bottom:4px}
.card{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:7px 14px;white-space:nowrap;border-top:1px solid var(--line)}
th{border-top:0;color:var(--dim);font-weight:500;font-size:13px}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
td.id{font-family:var(--mono);font-size:13px;max-width:260px;overflow:hidden;
text-overflow:ellipsis}
td.wrap{white-space:normal;min-width:180px}
.empty{padding:14px;color:var(--dim)}
.notice{border-radius:10px;border:1px solid var(--line);border-left:4px solid var(--undecided);
background:var(--card);padding:9px 14px;margin-top:10px;overflow-wrap:anywhere}
.notice.bad{border-left-color:var(--unsafe);color:inherit}
.notice b{font-weight:600}
.bar{display:block;width:140px;height:9px;border-radius:5px}
.bar .track{fill:var(--line)}.bar .safe,.bar .fill{fill:var(--safe)}
.bar .unsafe{fill:var(--unsafe)}.bar .undecided{fill:var(--undecided)}.bar .fill{fill:var(--accent)}
.spark polyline{fill:none;stroke:var(--accent);stroke-width:1.6;vector-effect:non-scaling-stroke}
.find{margin:26px 0 8px;display:flex;flex-wrap:wrap;gap:8px;color:var(--dim)}
.find input{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:3px 8px;width:22em;max-width:100%}
.find button{font:inherit;color:var(--accent);background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:3px 12px}
footer{max-width:1280px;margin:0 auto;padding:22px 20px 32px;color:var(--dim);font-size:13px}
a{color:var(--accent)}
.stale main{opacity:.45}#stale{display:none}.stale #stale{display:inline}
@media(max-width:760px){header,main,footer{padding-left:12px;padding-right:12px}
.tiles{grid-template-columns:1fr 1fr;gap:8px}.tile b{font-size:21px}th,td{padding:6px 10px}}
"""

SCRIPT = """
(async function poll(){
  try{
    const answer=await fetch("console.json"+location.search,{cache:"no-store"});
    if(!answer.ok)throw 0;
    const{sections}=await answer.json();
    for(const[id,html]of Object.entries(sections)){
      const part=document.getElementById(id);
      if(part&&part.dataset.was!==html&&!part.contains(getSelection().anchorNode)&&
        !part.contains(document.activeElement))
        {part.innerHTML=html;part.dataset.was=html}
    }
    document.body.classList.remove("stale");
  }catch{document.body.classList.add("stale")}
  setTimeout(poll,2000);
})();
"""


def _source(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


CSP = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_source(STYLE)}",
        f"script-src {_source(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Nothing from elsewhere, and no script or style but these two, whatever an id may contain."""

HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
