import { render } from "preact";
import { App, watchTab } from "./app";
import { watchKeys } from "./keys";
import { settleAddress } from "./rest";
import { signInByAddress, start } from "./store";
import { watchTheme } from "./theme";
import "./style.css";

settleAddress();
watchTheme();
start();
void signInByAddress();
window.addEventListener("hashchange", () => void signInByAddress());
watchTab();
watchKeys();
const page = document.getElementById("page");
if (page) render(<App />, page);
