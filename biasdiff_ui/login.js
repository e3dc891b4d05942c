// Keeps the auditor's name for as long as the tab lives, and gives it to a server that does not know it: one that was started again, or
// a session that was dropped. By tab and not by browser, so that two people in two tabs stay two.

const KEPT = "biasdiff-auditor";
let given = ""; // where storage is refused, the name lives as long as the page

function keep(name) {
  given = name;
  try {
    if (name) sessionStorage.setItem(KEPT, name);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // Refused: a page that is loaded anew asks for the name again.
  }
}

function kept() {
  try {
    return sessionStorage.getItem(KEPT) ?? given;
  } catch {
    return given;
  }
}

export default function ({ data, setTriggerValue }) {
  if (data.name !== null) keep(data.name);
  else if (kept()) setTriggerValue("kept", kept());
}
