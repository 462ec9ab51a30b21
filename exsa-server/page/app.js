// Starts the page and switches between its views.

import { byId } from "./dom.js";
import { askForKey } from "./key.js";
import { startChat } from "./chat/view.js";
import { startLive } from "./live/view.js";

const chat = startChat();
const live = startLive({ modelsChanged: () => chat.refreshModels() });

const VIEWS = {
  chat: { node: byId("chat-view"), title: "Chat", shown: () => chat.refreshModels(), left: () => {} },
  live: { node: byId("live-view"), title: "Live", shown: () => live.show(), left: () => live.hide() },
};

let current = null;

function show(name) {
  if (name === current) return;
  if (current !== null) VIEWS[current].left();
  current = name;
  for (const [other, view] of Object.entries(VIEWS)) view.node.hidden = other !== name;
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[name].title} · Exsa`;
  window.scrollTo(0, 0);
  VIEWS[name].shown();
}

/** Other fragments, such as that of the link to the content, keep the view. */
function follow() {
  const name = location.hash.slice(1);
  if (Object.hasOwn(VIEWS, name)) show(name);
  else if (current === null) show("chat");
}

window.addEventListener("hashchange", follow);
byId("key-open").addEventListener("click", async () => {
  if (await askForKey()) VIEWS[current].shown();
});
follow();
