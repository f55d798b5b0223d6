// Which keys are held, by keyboard and by touch, and the action that they mean.

export const NAMES = {
  ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193", Space: "space",
};

export function keyName(code) {
  return NAMES[code] ?? code.replace(/^(Key|Digit)/, "");
}

export class Keyboard {
  // map: as `oneiro.play.keys.KeyMap`; pressed: called when a key of the game goes down.
  constructor(map, place, pressed) {
    this.map = map;
    this.held = new Set();
    this.tapped = new Set(); // pressed and let go between two steps: counts for one step
    this.codes = [...new Set(map.bindings.flatMap((b) => b.keys))];
    this.buttons = new Map();
    for (const code of this.codes) place.append(this.button(code, pressed));
    window.addEventListener("blur", () => this.release());
  }

  button(code, pressed) {
    const button = document.createElement("button");
    const alone = this.map.bindings.find((b) => b.keys.length === 1 && b.keys[0] === code);
    button.type = "button";
    button.tabIndex = -1;
    button.append(keyName(code));
    if (alone) {
      const small = document.createElement("small");
      small.textContent = alone.label;
      button.append(small);
    }
    button.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      this.down(code);
      pressed();
    });
    for (const name of ["pointerup", "pointercancel"]) button.addEventListener(name, () => this.up(code));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    this.buttons.set(code, button);
    return button;
  }

  knows(code) {
    return this.buttons.has(code);
  }

  down(code) {
    this.held.add(code);
    this.tapped.add(code);
    this.buttons.get(code)?.classList.add("held");
  }

  up(code) {
    this.held.delete(code);
    this.buttons.get(code)?.classList.remove("held");
  }

  release() {
    for (const code of [...this.held]) this.up(code);
    this.forget();
  }

  forget() {
    this.tapped.clear();
  }

  // The action as numbers, or null: the game waits for a key.
  action() {
    const { bindings, idle, is_box: isBox, low, high, excludes } = this.map;
    const down = new Set();
    for (const code of [...this.held, ...this.tapped]) { // in the order in which they were pressed
      if (!excludes.some((pair) => pair.includes(code) && pair.some((other) => other !== code && down.has(other)))) down.add(code);
    }
    this.tapped.clear();
    const active = bindings.filter((b) => b.keys.every((key) => down.has(key)));
    if (!active.length) return idle;
    if (bindings[0].action.length === 1 && !isBox) {
      return active.reduce((best, b) => (b.keys.length > best.keys.length ? b : best)).action;
    }
    const action = [...idle], isSet = action.map(() => false);
    for (const { action: own } of active) {
      own.forEach((v, i) => {
        if (v === null) return;
        action[i] = isBox && isSet[i] ? action[i] + v : v;
        isSet[i] = true;
      });
    }
    return isBox ? action.map((v, i) => Math.min(Math.max(v, low[i]), high[i])) : action;
  }

  // What an action is called, for the line under a picture.
  label(action) {
    if (!action) return "";
    const { bindings, idle, is_box: isBox } = this.map;
    if (idle?.every((v, i) => v === action[i])) return "none";
    const same = bindings.filter((b) => b.action.every((v, i) => v === null || v === action[i]));
    const isWhole = action.every((v, i) => v === idle?.[i] || same.some((b) => b.action[i] !== null));
    if (isWhole && same.length) return isBox || action.length > 1 ? same.map((b) => b.label).join(", ") : same[0].label;
    return action.map((v) => (isBox ? v.toFixed(2) : v)).join(" ");
  }
}
