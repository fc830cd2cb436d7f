// Elements without markup. Text from the server is only ever set as text, so nothing in a key or a value is markup.

/** An HTML element. Attributes: `class`, `on…` listeners, properties such as `value`, anything else as an attribute. */
function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function s(tag, attributes, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Replaces the children of an element. */
function fill(element, ...children) {
  element.replaceChildren();
  return build(element, {}, children);
}

/** Sets text only if it differs, so that an unchanged page costs no layout. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only if it differs. */
function setAttribute(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Shows a question in the page's dialog. Resolves with the value of the button that was pressed, or null. */
function ask(title, body, buttons) {
  const dialog = document.getElementById("dialog");
  return new Promise((resolve) => {
    const close = (value) => {
      dialog.close();
      resolve(value);
    };
    fill(dialog, h("form", { method: "dialog", onsubmit: (event) => {
      event.preventDefault();
      close(buttons.find((button) => button.main)?.value ?? null);
    } },
      h("h2", {}, title), body,
      h("p", { class: "buttons" },
        buttons.map((button) => h("button", {
          type: button.main ? "submit" : "button",
          class: button.danger ? "danger" : button.main ? "main" : "",
          onclick: button.main ? undefined : () => close(button.value),
        }, button.label)))));
    dialog.oncancel = () => resolve(null);
    dialog.showModal();
  });
}
