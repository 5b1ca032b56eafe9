// When to ask for a picture: at once, one at a time, and never showing what is no longer wanted.

const PAUSE_MS = 120;
const SLOW_MS = 700;

export class Renderer {
  /**
   * @param job returns what to ask for, or null where something is missing
   * @param ask (job, signal) => Promise of the answer
   * @param show (answer, job) => void
   * @param none () => void, where something is missing: what was shown is no longer wanted
   * @param fail (error) => void
   * @param wait (milliseconds, or null when the waiting is over) => void
   */
  constructor({ job, ask, show, none, fail, wait }) {
    Object.assign(this, { job, ask, show, none, fail, wait });
    this.number = 0;
    this.running = null;
    this.timer = null;
    this.again = false;
  }

  /**
   * Something changed. A jump (another layout, another photo) makes the running request worthless; in the
   * midst of a stroke or of a slider's way its answer is still shown, and the next one follows.
   */
  change(jump = true) {
    if (jump) {
      this.number += 1;
      this.running?.abort();
      this.running = null;
    }
    if (this.running) {
      this.again = true;
      return;
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.run(), PAUSE_MS);
  }

  async run() {
    const job = this.job();
    if (!job) {
      this.none();
      this.wait(null);
      return;
    }
    const number = this.number;
    const control = new AbortController();
    this.running = control;
    this.again = false;
    const begin = performance.now();
    const clock = setInterval(() => {
      const waited = performance.now() - begin;
      if (waited > SLOW_MS && this.running === control) this.wait(waited);
    }, 250);
    try {
      const answer = await this.ask(job, control.signal);
      if (number === this.number) await this.show(answer, job);
    } catch (error) {
      if (number === this.number) this.fail(error);
    } finally {
      clearInterval(clock);
      if (this.running === control) {
        this.running = null;
        this.wait(null);
        if (this.again) this.change(false);
      }
    }
  }
}
