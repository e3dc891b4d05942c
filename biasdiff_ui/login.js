// Keeps the auditor's name for as long as the tab lives, and gives it to a server that does not know it: one that was started again, or
// a session that was dropped. By tab and not by browser, so that two people in two tabs stay two.

const KEPT = "biasdiff-auditor";

export default function ({ data, setTriggerValue }) {
  try {
    if (data.name) sessionStorage.setItem(KEPT, data.name);
    else if (data.name === "") sessionStorage.removeItem(KEPT);
    else if (sessionStorage.getItem(KEPT)) setTriggerValue("kept", sessionStorage.getItem(KEPT));
  } catch {
    // Storage is refused: the name is asked for again.
  }
}
