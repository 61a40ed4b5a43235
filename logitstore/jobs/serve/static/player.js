/**
 * Plays decoded sounds sample by sample, and swaps one for another without losing the place. It has what wavesurfer.js
 * wants of a media element, so that a click into the waveform seeks.
 */

/**
 * Decode a file at a rate: a WAV file of that rate comes out as the very samples that are in it.
 * @param {ArrayBuffer} file
 * @param {number} rate in Hz
 * @returns {Promise<AudioBuffer>}
 */
export function decoded(file, rate) {
  return new OfflineAudioContext(1, 1, rate).decodeAudioData(file);
}

export class Player extends EventTarget {
  src = "";
  currentSrc = "";
  volume = 1;
  muted = false;
  playbackRate = 1;
  readyState = 4;
  seeking = false;
  /** Whether it begins anew at the end. */
  loop = false;
  /** @type {AudioBuffer|null} */
  sound = null;
  /** @type {AudioContext|null} */
  #context = null;
  /** @type {AudioBufferSourceNode|null} */
  #node = null;
  #from = 0; // seconds into the sound at which it began
  #began = 0; // by the clock of the context

  get duration() {
    return this.sound?.duration ?? 0;
  }

  get paused() {
    return this.#node === null;
  }

  get ended() {
    return this.paused && this.duration > 0 && this.#from >= this.duration;
  }

  get currentTime() {
    if (!this.#node) return this.#from;
    const at = this.#from + this.#context.currentTime - this.#began;
    return this.loop ? at % this.duration : Math.min(at, this.duration);
  }

  set currentTime(time) {
    const playing = !this.paused;
    this.#silence();
    this.#from = Math.max(0, Math.min(time, this.duration));
    if (playing) this.#sound();
    this.#tell("seeking", "seeked", "timeupdate");
  }

  /** Take another sound, at the same place, playing on if it plays. @param {AudioBuffer} sound */
  use(sound) {
    const playing = !this.paused, at = this.currentTime;
    this.#silence();
    this.sound = sound;
    this.#from = Math.min(at, this.duration);
    if (playing) this.#sound();
    this.#tell("durationchange", "timeupdate");
  }

  /** Play from where it is, from the start when it is at its end. */
  async play() {
    if (!this.sound || !this.paused) return;
    if (this.#context?.sampleRate !== this.sound.sampleRate) {
      await this.#context?.close();
      this.#context = new AudioContext({ sampleRate: this.sound.sampleRate, latencyHint: "interactive" });
    }
    await this.#context.resume();
    if (!this.paused) return;
    if (this.ended) this.#from = 0;
    this.#sound();
    this.#tell("play");
    this.#follow();
  }

  pause() {
    if (this.paused) return;
    const at = this.currentTime;
    this.#silence();
    this.#from = at;
    this.#tell("pause", "timeupdate");
  }

  canPlayType() {
    return "";
  }

  removeAttribute() {}

  load() {}

  #sound() {
    const node = this.#context.createBufferSource();
    node.buffer = this.sound;
    node.loop = this.loop;
    node.connect(this.#context.destination);
    node.onended = () => {
      if (this.#node !== node) return;
      this.#node = null;
      this.#from = this.duration;
      this.#tell("pause", "timeupdate", "ended");
    };
    node.start(0, Math.min(this.#from, this.duration));
    this.#began = this.#context.currentTime;
    this.#node = node;
  }

  #silence() {
    const node = this.#node;
    this.#node = null;
    node?.stop();
    node?.disconnect();
  }

  #follow() {
    if (this.paused) return;
    this.#tell("timeupdate");
    requestAnimationFrame(() => this.#follow());
  }

  /** @param {...string} events */
  #tell(...events) {
    for (const event of events) this.dispatchEvent(new Event(event));
  }
}
