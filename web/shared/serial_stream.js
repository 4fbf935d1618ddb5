// @ts-check
/**
 * The two numbered byte streams of a serial session: what makes a drop lose and double nothing (docs/protocol.md).
 * Both sides count the console's bytes after the terminal filter, and the operator's bytes that the node is done with.
 */

export const LIMIT = 64 * 1024; // bytes of input kept until the node has taken them

/** The node says what cannot be. */
export class OutOfStep extends Error {}

/** The console's output. */
export class Inbound {
  constructor() {
    /** The offset after the last byte that came in; 0 before the first attachment. */
    this.received = 0;
    this._begun = false;
    this._skip = 0;
  }

  /**
   * An attachment starts at `offset`. Gives the count of bytes that are lost between here and there.
   * @param {number} offset
   */
  attach(offset) {
    const lost = this._begun ? Math.max(0, offset - this.received) : 0;
    this._skip = this._begun ? Math.max(0, this.received - offset) : 0;
    this.received = Math.max(this.received, offset);
    this._begun = true;
    return lost;
  }

  /**
   * What of a frame is new.
   * @param {Uint8Array} frame
   */
  feed(frame) {
    const skipped = Math.min(this._skip, frame.length);
    this._skip -= skipped;
    this.received += frame.length - skipped;
    return frame.subarray(skipped);
  }
}

/** The operator's input: kept, at most LIMIT bytes, until the node has taken it, and sent again from there after a drop. */
export class Outbound {
  constructor() {
    this._kept = new Uint8Array(0);
    this._taken = 0;
    this._sent = 0;
  }

  /** Bytes that `add` may take now. */
  get room() {
    return LIMIT - this._kept.length;
  }

  /** The offset that the next byte will have in the stream. */
  get end() {
    return this._taken + this._kept.length;
  }

  /** Bytes that the node has not taken. */
  get untaken() {
    return this._kept.length;
  }

  /**
   * Keeps all of it, or none where there is no room: false.
   * @param {Uint8Array} data
   */
  add(data) {
    if (data.length > this.room) return false;
    const kept = new Uint8Array(this._kept.length + data.length);
    kept.set(this._kept);
    kept.set(data, this._kept.length);
    this._kept = kept;
    return true;
  }

  /**
   * The next bytes to send, at most `most`; they count as sent.
   * @param {number} most
   */
  next(most) {
    const start = this._sent - this._taken;
    const chunk = this._kept.slice(start, start + most);
    this._sent += chunk.length;
    return chunk;
  }

  /**
   * The node has taken so many bytes since the session began. Throws OutOfStep.
   * @param {number} count
   */
  taken(count) {
    if (!(count >= this._taken && count <= this._sent)) {
      throw new OutOfStep(`the node counts ${count} bytes of input, it can be ${this._taken} to ${this._sent}`);
    }
    this._kept = this._kept.slice(count - this._taken);
    this._taken = count;
  }

  /**
   * A new attachment, and the node's count: what it did not take is to be sent again. Throws OutOfStep.
   * @param {number} count
   */
  attach(count) {
    this.taken(count);
    this._sent = count;
  }

  /** Drops what was not sent yet, and says how much that was. */
  forgetUnsent() {
    const start = this._sent - this._taken;
    const dropped = this._kept.length - start;
    this._kept = this._kept.slice(0, start);
    return dropped;
  }
}
