// Server-sent events out of a byte stream, however it is cut. Knows the format (HTML standard, 9.2), no meaning.

export class EventParser {
  #rest = []; // pieces of a line that has no end yet; it may be megabytes
  #data = [];
  #first = true;
  #afterReturn = false;

  // the data of every event that this text completes
  push(text) {
    if (this.#first && text) {
      this.#first = false;
      if (text.startsWith("\uFEFF")) text = text.slice(1);
    }
    if (this.#afterReturn && text) {
      // a line may end in \r\n, and the chunk between the two
      this.#afterReturn = false;
      if (text.startsWith("\n")) text = text.slice(1);
    }
    this.#afterReturn = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    const begun = lines.pop();
    if (lines.length) {
      lines[0] = this.#rest.join("") + lines[0];
      this.#rest = [];
    }
    this.#rest.push(begun);
    return lines.map((line) => this.#line(line)).filter((data) => data !== null);
  }

  #line(line) {
    if (line === "") {
      const data = this.#data.length ? this.#data.join("\n") : null;
      this.#data = [];
      return data;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1);
    if (name === "data") this.#data.push(value.startsWith(" ") ? value.slice(1) : value);
    return null; // comments (an empty name) and other fields say nothing here
  }
}

// the data of each event of a ReadableStream of bytes; a character may be cut too
export async function* events(stream) {
  const reader = stream.getReader(),
    decoder = new TextDecoder(),
    parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // a reader that left early takes no more; the stream may be broken already
  }
}
