// The report's charts and tables come as markup from the server. Only known elements and attributes are rebuilt from it.

const ELEMENTS = new Set(("div p ul ol li dl dt dd table thead tbody tr th td details summary h3 small b code span figure figcaption"
  + " svg g path rect circle polyline text").split(" "));
const ATTRIBUTES = new Set(("class scope title role aria-label tabindex open viewBox d x y width height rx cx cy r points text-anchor").split(" "));

/** A fragment of what is allowed in `markup`. It is parsed in a document that runs and loads nothing. */
export function rebuilt(markup) {
  const parsed = new DOMParser().parseFromString(markup, "text/html");
  const fragment = document.createDocumentFragment();
  fragment.append(...kept(parsed.body));
  return fragment;
}

function kept(parent) {
  return [...parent.childNodes].flatMap((node) => {
    if (node.nodeType === Node.TEXT_NODE) return [node.data];
    if (node.nodeType !== Node.ELEMENT_NODE || !ELEMENTS.has(node.localName)) return [];
    const made = document.createElementNS(node.namespaceURI, node.localName);
    for (const { name, value } of node.attributes) if (ATTRIBUTES.has(name)) made.setAttribute(name, value);
    made.append(...kept(node));
    return [made];
  });
}
