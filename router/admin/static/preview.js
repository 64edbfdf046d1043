// Writes the page that the admin page sends into a frame without scripts, forms or an origin.
"use strict";

addEventListener("message", (event) => {
  // This document's own origin is opaque; its address still says where it and the admin page come from.
  if (event.source !== parent || parent === window || event.origin !== location.origin) return;
  document.querySelector("iframe").srcdoc = String(event.data);
});
