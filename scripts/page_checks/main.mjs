// Checks of the web page, one line each; called by scripts/test-page.

import "./chat.mjs";
import "./errors.mjs";
import "./layout.mjs";
import "./live.mjs";
import "./markdown.mjs";
import { run } from "./harness.mjs";

process.exit((await run()) > 0 ? 1 : 0);
