// The API key: asked for in a dialog, kept in the session storage of the tab alone.

import { byId } from "./dom.js";

const NAME = "exsa.key";
const REASON = "The key is sent with every request and kept in this tab until it is closed.";

/** The key, or null. */
export const key = () => sessionStorage.getItem(NAME);

/** The dialog that is open now. */
let asking = null;

/** Asks for a key. Resolves to whether there is a new one. */
export function askForKey(reason = REASON) {
  asking ??= new Promise((resolve) => {
    const [dialog, form, input] = [byId("key-dialog"), byId("key-form"), byId("key-input")];
    let changed = false;
    byId("key-reason").textContent = reason;
    byId("key-forget").hidden = key() === null;
    input.value = "";
    const use = () => {
      const value = input.value.trim();
      if (value === "") return;
      sessionStorage.setItem(NAME, value);
      changed = true;
    };
    const forget = () => {
      sessionStorage.removeItem(NAME);
      changed = true;
      dialog.close();
    };
    const cancel = () => dialog.close();
    form.addEventListener("submit", use);
    byId("key-forget").addEventListener("click", forget);
    byId("key-cancel").addEventListener("click", cancel);
    const closed = () => {
      form.removeEventListener("submit", use);
      byId("key-forget").removeEventListener("click", forget);
      byId("key-cancel").removeEventListener("click", cancel);
      input.value = "";
      asking = null;
      resolve(changed);
    };
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
    input.focus();
  });
  return asking;
}
