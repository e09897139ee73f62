import { render } from "preact";
import { App, watchTab } from "./app";
import { start } from "./store";
import { watchTheme } from "./theme";
import "./style.css";

watchTheme();
start();
watchTab();
const page = document.getElementById("page");
if (page) render(<App />, page);
