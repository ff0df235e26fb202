"""The status page: one self-contained document that asks the other pages for what it shows."""

from typing import Final

STATUS_PAGE: Final = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>sidecar</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<style>
:root{color-scheme:light dark;--line:#8884;--good:#2a9d5c;--bad:#d1495b}
body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600;opacity:.7}.n{text-align:right}.good{color:var(--good)}.bad{color:var(--bad)}
nav a{margin-right:.8rem}code{font-size:.9em}
</style></head><body>
<h1 id="title">sidecar</h1><p id="state"></p>
<nav><a href="metrics">metrics</a><a href="clusters">clusters</a><a href="listeners">listeners</a>
<a href="certs">certificates</a><a href="config_dump">configuration</a>
<a href="overload">overload</a><a href="server_info">server info</a></nav>
<h2>Requests</h2><table id="requests"></table>
<h2>Endpoints</h2><table id="endpoints"></table>
<h2>Listeners</h2><table id="listeners"></table>
<h2>Certificates</h2><table id="certs"></table>
<script>
const get=async p=>(await fetch(p)).json();
const fill=(id,head,rows)=>{const t=document.getElementById(id);t.textContent="";
 const add=(cells,tag)=>{const r=t.insertRow();for(const c of cells){
  const e=document.createElement(tag);e.textContent=c;if(typeof c==="number")e.className="n";
  r.append(e)}};
 add(head,"th");rows.forEach(r=>add(r,"td"));if(!rows.length)add(["none"],"td")};
let before={};
async function show(){try{
 const i=await get("server_info"),c=await get("config_dump"),o=await get("overload?format=json");
 document.getElementById("title").textContent=
  `sidecar of ${c.workload.namespace||"default"}/${c.workload.name}`;
 const s=document.getElementById("state");
 s.textContent=`${i.state}, plan ${i.version}, release ${i.release}, up ${Math.round(i.uptime_seconds)} s`
  +(i.last_error?` - last reload refused: ${i.last_error}`:"")
  +o.filter(r=>r.resource&&r.value>0).map(r=>
   ` - worker ${r.worker} short of ${r.resource}: ${Math.round(r.value*100)} %`).join("");
 s.className=i.last_error||o.some(r=>r.value>0)?"bad":"good";
 const stats=(await get("stats?format=json")).filter(s=>s.name==="istio_requests_total");
 const now={};const rows=stats.map(s=>{const l=s.labels,k=JSON.stringify(l);now[k]=s.values[0];
  const rate=k in before?(s.values[0]-before[k])/2:0;
  return[l.reporter,l.source_workload,l.destination_service,l.response_code,l.response_flags,
   s.values[0],Math.round(rate*10)/10]});before=now;
 fill("requests",["reporter","source","destination","code","flags","total","per second"],rows);
 fill("endpoints",["cluster","address","available","health","active","connections","idle","requests",
  "failures","last health failure"],
  (await get("clusters?format=json")).map(e=>[e.cluster,e.address,
    e.available?"yes":e.ejected?"ejected: "+e.ejected:"no",e.health||"-",
   e.active,e.connections,e.idle,e.requests,e.failures,e.last_failure||"-"]));
 fill("listeners",["role","address","protocol","mTLS"],
  (await get("listeners?format=json")).map(l=>[l.role,l.address,l.protocol,l.mtls]));
 fill("certs",["from","identity","valid until","days left"],
  (await get("certs")).map(c=>[c.from,c.identity.join(" "),c.valid_until,c.days_left]));
}catch(e){document.getElementById("state").textContent="no answer: "+e}}
show();setInterval(show,2000);
</script></body></html>
"""
