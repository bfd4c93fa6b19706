import { MultiBar, type SingleBar } from 'cli-progress';
import { formatBytes } from '../kit/text.ts';

/** Bars for what goes on at once, each under its name, drawn by the library. Those that are done go. */
export class Bars {
  readonly #bars: MultiBar;
  readonly #shown = new Map<string, SingleBar>();
  readonly #ended: () => void;
  #isOver = false;

  /** @param ended called once, when nothing is drawn any more */
  constructor(stream: NodeJS.WritableStream, ended: () => void) {
    this.#ended = ended;
    this.#bars = new MultiBar({
      // The types want the process's own; the library writes and asks for columns.
      stream: stream as NodeJS.WriteStream,
      format: '[{bar}] {percentage} % {done} of {whole}  {name}',
      barCompleteChar: '#',
      barIncompleteChar: '.',
      barsize: 24,
      hideCursor: true,
      clearOnComplete: true,
      linewrap: false,
      fps: 10,
      gracefulExit: false,
    });
  }

  /** Sets one to so many bytes; one that is not there yet is begun. */
  set(name: string, done: number, total: number): void {
    const payload = { name, done: formatBytes(done), whole: formatBytes(total) };
    const bar = this.#shown.get(name);
    if (bar === undefined) this.#shown.set(name, this.#bars.create(total, done, payload));
    else {
      bar.setTotal(total);
      bar.update(done, payload);
    }
  }

  done(name: string): void {
    const bar = this.#shown.get(name);
    if (bar === undefined) return;
    this.#shown.delete(name);
    this.#bars.remove(bar);
  }

  /** Writes a line, its end included, above the bars. */
  above(line: string): void {
    this.#bars.log(line);
  }

  /** Takes all of them off the screen. May be called more than once. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    // What waits to be written above is written with the bars.
    this.#bars.update();
    this.#bars.stop();
    this.#ended();
  }
}
