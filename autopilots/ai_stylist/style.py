"""The stylesheet: one scale of sizes, one of spaces, and the colours of a theme."""

from __future__ import annotations

from autopilots.ai_stylist.theme import SANS, Theme, mix


def stylesheet(theme: Theme) -> str:
    """Return the CSS of a page in this theme. Nothing in it comes from a caller but checked colours."""
    colors = theme.colors
    values = {
        "ground": colors.background,
        "surface": colors.surface,
        "ink": colors.text,
        "muted": colors.muted,
        "primary": colors.primary,
        "on": colors.on_primary,
        "link": colors.link,
        "accent": colors.accent,
        "edge": mix(colors.muted, colors.background, 0.72),
        "text": SANS,
        "head": theme.headings,
    }
    declared = ";".join(f"--{name}:{value}" for name, value in values.items())
    return f":root{{color-scheme:{'dark' if theme.dark else 'light'};{declared}}}\n{_RULES}"


_RULES = """\
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);\
font:400 1.0625rem/1.6 var(--text);overflow-wrap:anywhere}
h1,h2,h3,h4,h5,h6{font-family:var(--head);line-height:1.15;margin:0;text-wrap:balance;letter-spacing:-.01em}
h1,.s-hero h2{font-size:clamp(2.25rem,1.5rem + 3.4vw,3.75rem);line-height:1.08;letter-spacing:-.02em}
h2{font-size:clamp(1.625rem,1.3rem + 1.5vw,2.375rem)}
h3,.card h2{font-size:1.25rem}
h4,h5,h6{font-size:1.125rem}
p,dl,ul,figure,blockquote{margin:0;padding:0}
a{color:var(--link);text-underline-offset:.2em}
a:focus-visible,button:focus-visible,input:focus-visible,textarea:focus-visible{\
outline:3px solid var(--ink);outline-offset:3px}
.skip{position:absolute;left:1rem;top:-6rem;z-index:2;padding:.75rem 1.25rem;background:var(--ink);\
color:var(--ground);border-radius:0 0 .5rem .5rem}
.skip:focus{top:0}
.wide,.bar,footer>p{width:min(70rem,100% - 2.5rem);margin-inline:auto}
.bar{display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;gap:.25rem 2rem;\
padding-block:1rem}
.brand{display:inline-flex;align-items:center;gap:.75rem;font:700 1.125rem/1.2 var(--head)}
.brand svg{width:2rem;height:2rem;border-radius:.5rem;flex:none}
nav ul{display:flex;flex-wrap:wrap;gap:0 1.5rem;list-style:none}
nav a{display:inline-block;padding:.625rem 0;color:var(--muted);text-decoration:none}
nav a:hover{color:var(--ink);text-decoration:underline}
main{outline:0}
section,.plain{padding-block:clamp(3rem,2rem + 4vw,5.5rem)}
.s-hero,.plain{padding-block:clamp(2rem,1.5rem + 3vw,4.5rem)}
.plain + section{padding-top:0}
.intro{max-width:42rem;margin-bottom:2.25rem}
.intro:last-child{margin-bottom:0}
.lead{color:var(--muted);font-size:1.1875rem;margin-top:1rem;max-width:38rem}
.eyebrow{color:var(--link);font-weight:700;margin-bottom:1rem}
.split{display:grid;grid-template-columns:minmax(0,1fr);gap:2.5rem;align-items:center}
.split.top{align-items:start}
.picture{display:block;width:100%;max-width:30rem;height:auto;border-radius:1.25rem}
.actions{display:flex;flex-wrap:wrap;gap:.75rem;margin-top:2rem}
.intro + .actions{margin-top:0}
.button{display:inline-flex;align-items:center;min-height:3rem;padding:.625rem 1.5rem;\
border:2px solid var(--primary);border-radius:.625rem;background:var(--primary);color:var(--on);\
font:600 1rem/1.2 var(--text);text-decoration:none;cursor:pointer}
.button:hover{text-decoration:underline}
.button.quiet{background:none;border-color:var(--edge);color:var(--ink)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,17rem),1fr));gap:1.25rem;list-style:none}
.cards:has(>:nth-child(4):last-child){\
grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
.card{display:flex;flex-direction:column;gap:.625rem;padding:1.75rem;background:var(--ground);\
border:1px solid var(--edge);border-radius:1rem}
.card p{color:var(--muted)}
.icon{width:3rem;height:3rem;border-radius:.75rem;margin-bottom:.5rem}
section:nth-of-type(even){background:var(--surface)}
.s-cta.s-cta{background:var(--primary);color:var(--on)}
.s-cta .lead{color:inherit}
.s-cta .button{background:var(--on);border-color:var(--on);color:var(--primary)}
.s-cta a:focus-visible{outline-color:var(--on)}
blockquote p{color:var(--ink);font:400 1.1875rem/1.5 var(--head)}
blockquote::before{content:"";display:block;width:2.5rem;height:.375rem;border-radius:1rem;background:var(--accent);\
margin-bottom:1.25rem}
figcaption{display:flex;flex-direction:column;margin-top:1.25rem}
.role{color:var(--muted);font-size:1rem}
.price{font:700 1.75rem/1.2 var(--head)}
.card .price{color:var(--ink)}
.card .price.unknown{font-size:1.125rem}
.s-pricing .actions{margin-top:auto;padding-top:.75rem}
.ticks{list-style:none;display:grid;gap:.375rem}
.ticks li{padding-left:1.5rem;position:relative}
.ticks li::before{content:"";position:absolute;left:.125rem;top:.4em;width:.4rem;height:.75rem;\
border:solid var(--link);border-width:0 .15rem .15rem 0;transform:rotate(42deg)}
.s-faq .cards{gap:2rem 2.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
.s-faq li{border-top:2px solid var(--edge);padding-top:1.25rem}
.s-faq li p{color:var(--muted);margin-top:.5rem}
.initials{display:grid;place-items:center;width:3.5rem;height:3.5rem;border-radius:50%;background:var(--primary);\
color:var(--on);font-weight:700}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,12rem),1fr));gap:2rem}
.figures div{display:flex;flex-direction:column-reverse;\
border-left:.375rem solid var(--accent);padding-left:1.25rem}
.figures dd{margin:0;font:700 2.5rem/1.1 var(--head)}
.figures dt{color:var(--muted)}
.details{display:grid;gap:1.25rem}
.details dt{color:var(--muted)}
.details dd{margin:0;font-size:1.125rem}
form{display:grid;gap:1.25rem;padding:clamp(1.25rem,4vw,2rem);background:var(--ground);\
border:1px solid var(--edge);border-radius:1rem;width:100%;max-width:36rem}
.field{display:grid;gap:.375rem}
label{font-weight:600}
input,textarea{width:100%;padding:.75rem .875rem;border:1px solid var(--muted);border-radius:.5rem;\
background:var(--ground);color:var(--ink);font:inherit;font-size:1rem}
textarea{resize:vertical}
footer{border-top:1px solid var(--edge);padding-block:2rem;color:var(--muted)}
footer p + p{margin-top:.25rem}
@media (min-width:52rem){.split{grid-template-columns:minmax(0,1.1fr) minmax(0,.9fr);gap:4rem}\
.split.top{grid-template-columns:minmax(0,.7fr) minmax(0,1.3fr)}.split.top>:only-child{grid-column:1/-1}\
.picture{justify-self:end}}
@media (prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}\
.button,nav a{transition:background-color .15s,color .15s}}
@media print{nav,.skip,.actions,form{display:none}}
"""
