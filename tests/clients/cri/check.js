// Counts what held and what did not, and waits for what comes about by itself.
import { isDeepStrictEqual } from "node:util";

const WAIT_MS = 120_000;
export const count = { passed: 0, failed: 0 };

function tell(held, name, why) {
  count[held ? "passed" : "failed"]++;
  console.log(held ? `ok   ${name}` : `FAIL ${name}: ${why}`);
}
const shown = (value) => value instanceof Error ? String(value) : JSON.stringify(value);

export function same(name, wanted, got) {
  tell(isDeepStrictEqual(got, wanted), name, `wanted ${shown(wanted)}, got ${shown(got)}`);
}
export function between(name, low, got, high) {
  tell(low <= got && got <= high, name, `wanted ${low} to ${high}, got ${got}`);
}
// The call answers; its answer, or undefined.
export async function works(name, promise) {
  try {
    const answer = await promise;
    tell(true, name);
    return answer;
  } catch (error) {
    tell(false, name, shown(error));
  }
}
// The call is refused, in these words.
export async function refused(name, words, promise) {
  const error = await promise.then(() => new Error("it was not refused"), (e) => e);
  tell(words.test(error.message), name, `wanted ${words}, got ${error.message}`);
}
// Waits until the condition holds; what it says then. Without it nothing that follows makes sense.
export async function eventually(what, condition) {
  for (const end = Date.now() + WAIT_MS; Date.now() < end;) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`never came about: ${what}`);
}
