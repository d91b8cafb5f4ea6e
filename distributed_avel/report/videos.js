"use strict";
/* The list of videos: search, sort, pages, timelines and the player.

   `report/video_list.py` writes the data. Names and messages become text nodes and attributes,
   never markup. A list with many videos has its timelines in files beside the page, which are
   scripts that call `avelVideos`, because a page that was opened from a disk may not read others. */
(() => {
  const PER_PAGE = 12;
  const ERRORS = ["", "missed", "false positive"];
  const SVG = "http://www.w3.org/2000/svg";
  const data = JSON.parse(document.getElementById("video-data").textContent);
  const section = document.getElementById("timelines");
  const form = section.querySelector("form.search");
  const list = document.getElementById("videos");
  const pager = section.querySelector(".pager");
  const problem = section.querySelector(".problem");
  const field = form.elements;
  const mediaRoot = document.body.dataset.mediaRoot ?? "";

  const videos = data.videos.map(([id, labels, values, segments, media], number) => {
    const names = labels.map((label) => data.names[label][0]);
    const text = [id, ...names].join(" ").toLowerCase();
    return { id, names, text, values, segments, media, number };
  });
  const drawn = new Map(
    [...list.children].map((figure) => [figure.dataset.video, figure]),
  );
  let order = videos, first = 0, turn = 0;

  function make(tag, attributes = {}, ...children) {
    const isSvg = tag === "svg" || tag === "path";
    const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Styles are set as properties, because the security policy of the page may forbid attributes.
  function styled(element, styles) {
    for (const [name, value] of Object.entries(styles)) element.style.setProperty(name, value);
    return element;
  }

  // Details of the videos: in the page, or in files of `data.per_file` videos each.

  const files = new Map();
  const waiting = new Map();
  globalThis.avelVideos = (number, details) => waiting.get(number)?.(details);

  function loadFile(number) {
    if (!files.has(number)) {
      files.set(number, new Promise((resolve, reject) => {
        waiting.set(number, resolve);
        const script = make("script", { src: data.files[number] });
        script.onerror = () => {
          files.delete(number);
          reject(new Error(`${data.files[number]} beside this page cannot be read. Keep the page `
            + `and its folder together${data.single ? `, or open ${data.single}` : ""}.`));
        };
        document.head.append(script);
      }));
    }
    return files.get(number);
  }

  async function detailOf(video) {
    if (data.details) return data.details[video.number];
    const details = await loadFile(Math.floor(video.number / data.per_file));
    return details[video.number % data.per_file];
  }

  // Timelines. `videos.html` draws the same for the videos that a page shows without scripts.

  const seconds = (segment) => +(segment * data.segment_s).toPrecision(6);

  function swatch(hue) {
    const span = make("span", { class: hue === null ? "swatch background" : "swatch" });
    return hue === null ? span : styled(span, { "--hue": hue });
  }

  function lane(name, ...content) {
    return make("div", { class: "lane" }, make("span", { class: "name" }, ...name), ...content);
  }

  // A column for each stretch between two bounds: long videos would have thousands of segments.
  function columnsOf(row, segments) {
    const [bars, wrong] = row;
    const bounds = new Set([0, segments]);
    for (const [, start, end] of bars) bounds.add(start).add(end);
    for (const [start, end] of wrong) bounds.add(start).add(end);
    const cuts = [...bounds].sort((a, b) => a - b);
    const widths = cuts.slice(1).map((cut, i) => `minmax(0, ${cut - cuts[i]}fr)`);
    return { widths: widths.join(" "), at: new Map(cuts.map((cut, i) => [cut, i + 1])) };
  }

  function cells(row, segments, probability) {
    const [bars, wrong] = row;
    const { widths, at } = columnsOf(row, segments);
    const place = (start, end) => ({ "grid-column": `${at.get(start)} / ${at.get(end)}` });
    const div = styled(make("div", { class: "cells" }), { "grid-template-columns": widths });
    for (const [label, start, end, error, confidence] of bars) {
      const [name, hue] = data.names[label];
      const classes = ["run"];
      if (hue === null) classes.push("background");
      if (error) classes.push(ERRORS[error].replace(" ", "-"));
      const times = `${seconds(start)}–${seconds(end)} s`;
      const sure = confidence === undefined ? "" : `, ${Math.round(100 * confidence)} %`;
      const title = `${name}, ${times}${sure}${error ? `: ${ERRORS[error]}` : ""}`;
      const bar = make("span", { class: classes.join(" "), title }, hue === null ? "" : name);
      styled(bar, place(start, end));
      if (hue !== null) styled(bar, { "--hue": hue });
      div.append(bar);
    }
    for (const [start, end] of wrong) {
      div.append(styled(make("span", { class: "wrong" }), place(start, end)));
    }
    if (probability) {
      const box = { viewBox: `0 0 ${segments} 1`, preserveAspectRatio: "none", role: "img" };
      div.append(make("svg", { class: "probability", ...box,
        "aria-label": "Probability of any event" }, make("path", { d: probability })));
    }
    return div;
  }

  function pictureLanes({ frames, waveform, columns, mel }) {
    const lanes = [];
    const picture = { alt: "", loading: "lazy", decoding: "async" };
    if (frames?.length) {
      const images = frames.map((src) => make("img", { src, ...picture }));
      const row = make("div", { class: "cells", role: "img", "aria-label": "Frames" }, ...images);
      lanes.push(lane(["frames"], styled(row, {
        "grid-template-columns": `repeat(${frames.length}, minmax(0, 1fr))`,
      })));
    }
    if (waveform) {
      const wave = make("svg", { class: "waveform", viewBox: `0 -1 ${columns} 2`,
        preserveAspectRatio: "none", role: "img", "aria-label": "Waveform" },
        make("path", { d: waveform }));
      lanes.push(lane(["waveform"], make("div", { class: "sound" }, wave)));
      const image = make("img", { class: "mel", src: mel, ...picture, alt: "Log-mel spectrogram" });
      lanes.push(lane(["log-mel"], make("div", { class: "sound" }, image)));
    }
    return lanes;
  }

  function figureOf(video, detail) {
    const figure = make("figure", { class: "timeline", "data-video": video.id });
    styled(figure, { "--segments": video.segments });
    const keys = detail.keys.map(([label, isPresent]) => {
      const [name, hue] = data.names[label];
      return make("span", { class: isPresent ? "key present" : "key" }, swatch(hue), name);
    });
    const tags = data.synthetic ? [make("span", { class: "tag" }, "[synthetic]")] : [];
    const lanes = detail.lanes.map(([name, right, probability, rows]) => {
      const words = [data.lanes[name]];
      if (right !== null) {
        words.push(" ", make("span", { class: "right" }, `${right}/${video.segments}`));
      }
      const last = rows.length - 1;
      return lane(words, ...rows.map(
        (row, i) => cells(row, video.segments, i === last && probability)));
    });
    const ticks = data.ticks[video.segments].map(
      ([place, label]) => styled(make("span", {}, label), { left: `${place}%` }));
    figure.append(
      make("h3", {}, make("code", {}, video.id), ...keys, ...tags),
      make("div", { class: "lanes" }, ...pictureLanes(detail.pictures ?? {}), ...lanes,
        lane([], make("div", { class: "ticks", "aria-hidden": "true" }, ...ticks))),
    );
    if (detail.note) figure.append(make("p", { class: "remark" }, detail.note));
    return figure;
  }

  // The cursor: a slider moves it, and so do the media while they play.

  function addCursor(figure, video, detail) {
    const lanes = figure.querySelector(".lanes");
    const duration = video.segments * data.segment_s;
    const slider = make("input", { type: "range", min: 0, max: duration, value: 0,
      step: data.segment_s / 10, "aria-label": `Time in ${video.id}` });
    const time = make("output", { class: "time" });
    const words = make("p", { class: "now" });
    const cursor = make("div", { class: "cursor", "aria-hidden": "true" });
    let media = null;

    function moveTo(second) {
      const at = Math.min(Math.max(second, 0), duration);
      slider.value = at;
      styled(cursor, { "--at": at / duration });
      time.textContent = `${at.toFixed(1)} s`;
      const segment = Math.min(Math.floor(at / data.segment_s), video.segments - 1);
      const text = `${at.toFixed(1)} s: ${detail.lanes.map(([name, , , rows]) => {
        const names = rows.flatMap(([bars]) => bars).filter(
          ([, start, end, error]) => start <= segment && segment < end && error !== 1);
        const labels = names.map(([label]) => data.names[label][0]).join(", ");
        return `${data.lanes[name]} ${labels || "no event"}`;
      }).join("; ")}`;
      slider.setAttribute("aria-valuetext", text);
      words.textContent = text;
    }

    function seek(second) {
      moveTo(second);
      if (media) media.currentTime = second;
    }

    slider.addEventListener("input", () => seek(+slider.value));
    slider.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      if (media) media.paused ? media.play() : media.pause();
      else figure.querySelector("button.play")?.click();
    });
    lanes.addEventListener("click", (event) => {
      const row = event.target.closest(".cells, .sound");
      if (!row || !lanes.contains(row)) return;
      const box = row.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * duration);
    });
    lanes.append(lane(["time ", time], slider), cursor);
    figure.append(words);
    moveTo(0);
    if (video.media && (mediaRoot || data.is_located)) {
      addPlayer(figure, video, (player) => { media = player; }, moveTo, () => +slider.value);
    }
  }

  function addPlayer(figure, video, attach, moveTo, now) {
    const address = (data.is_located ? "" : mediaRoot) + video.media;
    const button = make("button", { type: "button", class: "play",
      "aria-label": `Play ${video.id}` }, "▶ Play");
    const heading = figure.querySelector("h3");
    heading.append(button);
    button.addEventListener("click", () => {
      const player = make("video", { controls: "", playsinline: "", preload: "auto",
        "aria-label": video.id });
      const box = make("div", { class: "player" }, player);
      const from = now();
      const follow = () => {
        moveTo(player.currentTime);
        if (!player.paused && player.isConnected) requestAnimationFrame(follow);
      };
      player.addEventListener("play", () => {
        for (const other of document.querySelectorAll("video")) if (other !== player) other.pause();
        follow();
      });
      player.addEventListener("seeked", () => moveTo(player.currentTime));
      player.addEventListener("error", () => {
        const words = `${decodeURIComponent(address)} is not at hand, or this browser cannot play it.`;
        attach(null);
        figure.classList.remove("playing");
        box.remove();
        button.replaceWith(make("span", { class: "remark", role: "status" }, words));
      });
      player.src = address;
      player.currentTime = from;
      heading.after(box);
      figure.classList.add("playing");
      button.hidden = true;
      attach(player);
      player.play().catch(() => {});  // a browser may want another click, or the file is missing
      player.focus();
    });
  }

  async function ready(video) {
    if (!drawn.get(video.id)?.dataset.number) {
      const detail = await detailOf(video);
      const figure = drawn.get(video.id) ?? figureOf(video, detail);
      figure.dataset.number = video.number;
      addCursor(figure, video, detail);
      drawn.set(video.id, figure);
    }
    return drawn.get(video.id);
  }

  // Search and sort.

  function compare(a, b) {
    const column = +field.sort.value - 1;  // 0 is the id
    const up = field.descending.checked ? -1 : 1;
    const [x, y] = column < 0 ? [a.id, b.id] : [a.values[column], b.values[column]];
    if (x === y) return a.number - b.number;
    if (x === null || y === null) return x === null ? 1 : -1;
    if (column < 0) return up * x.localeCompare(y, "en", { numeric: true });
    return up * (x - y);
  }

  function select() {
    const words = field.words.value.toLowerCase().split(/\s+/);
    const name = field.class.value;
    order = videos.filter((video) => words.every((word) => video.text.includes(word))
      && (!name || video.names.includes(name)));
    if (field.sort.value) order.sort(compare);
    else if (field.descending.checked) order.reverse();
    first = 0;
    const count = order.length.toLocaleString("en");
    const all = `${videos.length.toLocaleString("en")} ${videos.length === 1 ? "video" : "videos"}`;
    field.count.textContent = order.length === videos.length ? all : `${count} of ${all}`;
    return show();
  }

  async function show() {
    const mine = ++turn;
    const shown = order.slice(first, first + PER_PAGE);
    const [previous, next] = pager.querySelectorAll("button");
    previous.disabled = first === 0;
    next.disabled = first + PER_PAGE >= order.length;
    pager.querySelector("span").textContent = shown.length
      ? `${first + 1}–${first + shown.length} of ${order.length}` : "";
    pager.hidden = order.length <= PER_PAGE;
    try {
      const figures = await Promise.all(shown.map(ready));
      if (mine !== turn) return;  // the reader has asked for others since
      problem.hidden = true;
      list.replaceChildren(...figures);
    } catch (error) {
      if (mine !== turn) return;
      problem.textContent = error.message;
      problem.hidden = false;
      list.replaceChildren();
    }
  }

  function turnTo(start) {
    first = start;
    form.scrollIntoView();
    return show();
  }

  const names = [...new Set(videos.flatMap((video) => video.names))].sort(
    (a, b) => a.localeCompare(b, "en", { numeric: true }));
  for (const name of names) field.class.append(make("option", { value: name }, name));
  ["id", ...data.columns].forEach(
    (column, number) => field.sort.append(make("option", { value: number }, column)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", select);
  pager.addEventListener("click", (event) => {
    if (event.target.name === "previous") turnTo(Math.max(0, first - PER_PAGE));
    if (event.target.name === "next") turnTo(first + PER_PAGE);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input:not([type=range]), textarea, select")) return;
    event.preventDefault();
    field.words.focus();
  });
  form.hidden = false;
  select();
})();
