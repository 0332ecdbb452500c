// 形状流水线：一层接一层，每层之后的形状、参数、乘法；接不上，就说 torch 会说的那句话。
(() => {
  const BATCH = 5;
  const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
  const times = (sizes) => sizes.join("x");

  // 每种层：能改的数 [名字, 最小, 最大]，新加时的值，代码怎么写，走一遍得到什么。
  const KINDS = {
    conv: {
      title: "卷积", fresh: { out: 8, k: 3, s: 1, p: 1 },
      fields: { out: ["出", 1, 512], k: ["窗口", 1, 9], s: ["步幅", 1, 4], p: ["补边", 0, 4] },
      code: ({ out, k, s, p }, shape) => `nn.Conv2d(${shape.length === 4 ? shape[1] : "?"}, ${out}, ${k}` +
        `${s > 1 ? `, stride=${s}` : ""}${p ? `, padding=${p}` : ""})`,
      run: ({ out, k, s, p }, shape) => {
        if (shape.length !== 4) {
          return {
            error: `Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: [${shape.join(", ")}]`,
            why: "卷积要图，(张数, 通道, 高, 宽)。摊平之后没有高和宽了。",
          };
        }
        const [, channels, height, width] = shape, padded = [height + 2 * p, width + 2 * p];
        if (Math.min(...padded) < k) {
          return {
            error: `Calculated padded input size per channel: (${padded.join(" x ")}). Kernel size: (${k} x ${k}). ` +
              "Kernel size can't be greater than actual input size",
            why: "补过边的图还没有窗口大。",
          };
        }
        const [h, w] = padded.map((n) => Math.floor((n - k) / s) + 1), each = channels * k * k;
        return { shape: [shape[0], out, h, w], params: out * (each + 1), mults: out * h * w * each };
      },
    },
    pool: {
      title: "池化", fresh: { k: 2 }, fields: { k: ["窗口", 1, 9] },
      code: ({ k }) => `nn.MaxPool2d(${k})`,
      run: ({ k }, shape) => {
        if (shape.length !== 4) {
          return {
            error: "non-empty 3D or 4D (batch mode) tensor expected for input",
            why: "池化要图，(张数, 通道, 高, 宽)。摊平之后没有高和宽了。",
          };
        }
        const [batch, channels, ...sides] = shape, small = sides.map((n) => Math.floor((n - k) / k) + 1);
        if (Math.min(...small) < 1) {
          return {
            error: `Given input size: (${times([channels, ...sides])}). ` +
              `Calculated output size: (${times([channels, ...small])}). Output size is too small`,
            why: "图比窗口小，池化之后一格也不剩。",
          };
        }
        return { shape: [batch, channels, ...small], params: 0, mults: 0 };
      },
    },
    flatten: {
      title: "展平", fresh: {}, fields: {}, code: () => "nn.Flatten()",
      run: (_, shape) => ({ shape: [shape[0], product(shape.slice(1))], params: 0, mults: 0 }),
    },
    linear: {
      title: "全连接", fresh: { in: 64, out: 10 },
      fields: { in: ["进", 1, 99999], out: ["出", 1, 9999] },
      code: (layer) => `nn.Linear(${layer.in}, ${layer.out})`,
      run: (layer, shape) => {
        const last = shape[shape.length - 1], before = shape.slice(0, -1);
        if (last !== layer.in) {
          return {
            error: `addmm: mat1 and mat2 shapes cannot be multiplied (${product(before)}x${last} and ${layer.in}x${layer.out})`,
            why: `来的每行 ${last} 个数，这层要 ${layer.in} 个。` +
              (shape.length === 4 ? `现在一行只是图里的一行；展平之后是 ${product(shape.slice(1))} 个。` : ""),
          };
        }
        return {
          shape: [...before, layer.out], params: layer.out * (layer.in + 1),
          mults: product(before.slice(1)) * layer.in * layer.out,
        };
      },
    },
  };

  // 从 (C, H, W) 的图走起；接不上就停，error 是 torch 的话。
  const walk = (image, layers) => {
    let shape = [BATCH, ...image];
    const rows = [];
    for (const layer of layers) {
      const row = { code: KINDS[layer.kind].code(layer, shape), ...KINDS[layer.kind].run(layer, shape) };
      rows.push(row);
      if (row.error) return { rows, error: row.error, why: row.why };
      shape = row.shape;
    }
    return { rows, error: "", why: "" };
  };

  const conv = (out, k = 3, p = 1) => ({ kind: "conv", out, k, s: 1, p });
  const linear = (n, out) => ({ kind: "linear", in: n, out });
  const pool = { kind: "pool", k: 2 }, flatten = { kind: "flatten" };
  const PRESETS = {
    "文件里的网络": [[1, 8, 8], [conv(16), conv(32), pool, conv(32), flatten, linear(512, 10)]],
    "LeNet": [[1, 28, 28], [conv(6, 5, 2), pool, conv(16, 5, 0), pool, flatten, linear(400, 120), linear(120, 84), linear(84, 10)]],
    "忘了展平": [[1, 8, 8], [linear(64, 10)]],
    "多池化一次": [[1, 8, 8], [conv(16), pool, conv(16), pool, flatten, linear(256, 10)]],
    "缩过了头": [[1, 8, 8], [conv(4), pool, pool, pool, pool]],
  };
  const IMAGES = [[1, 8, 8], [1, 28, 28], [3, 32, 32]];
  const MOST = 12;

  const spaced = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, " ");
  const copy = (layers) => layers.map((layer) => ({ ...layer }));

  const mount = (root, { el, button, replace, tuple }) => {
    const first = "文件里的网络";
    const state = { image: PRESETS[first][0], layers: copy(PRESETS[first][1]) };
    const presets = el("select", { "aria-label": "现成的", onchange: (event) => {
      const [image, layers] = PRESETS[event.target.value];
      Object.assign(state, { image, layers: copy(layers) });
      draw();
    } }, ...Object.keys(PRESETS).map((name) => el("option", { value: name }, name)));
    const images = el("select", { "aria-label": "一张图", onchange: (event) => {
      state.image = IMAGES[Number(event.target.value)];
      draw();
    } }, ...IMAGES.map((image, i) => el("option", { value: i }, image.join("×"))));
    const stages = el("ol", { class: "cw-stages" });
    const verdict = el("p", { class: "cw-formula", role: "status" });
    const adders = Object.keys(KINDS).map((kind) => button(`加${KINDS[kind].title}`, () => {
      state.layers.push({ kind, ...KINDS[kind].fresh });
      draw();
    }));

    const number = (layer, i, field) => {
      const [title, min, max] = KINDS[layer.kind].fields[field];
      return el("label", {}, `${title} `, el("input", {
        type: "number", min, max, step: 1, value: layer[field], class: "cw-count",
        "data-key": `${i} ${field}`, "aria-label": `第 ${i + 1} 层${KINDS[layer.kind].title}的${title}`,
        onchange: (event) => {
          const value = Math.round(Number(event.target.value));
          if (event.target.value.trim() !== "" && value >= min && value <= max) layer[field] = value;
          draw();
        },
      }));
    };

    const stage = (layer, i, row) => {
      const title = KINDS[layer.kind].title;
      const tools = [];
      if (i) {
        tools.push(button("上移", () => {
          state.layers.splice(i - 1, 2, layer, state.layers[i - 1]);
          draw();
        }, { "aria-label": `第 ${i + 1} 层${title}上移`, class: "cw-again", "data-key": `${i} up` }));
      }
      tools.push(button("删掉", () => { state.layers.splice(i, 1); draw(); },
        { "aria-label": `删掉第 ${i + 1} 层${title}`, class: "cw-again", "data-key": `${i} cut` }));
      const out = !row ? "没走到" : row.error ? "接不上"
        : `${tuple(row.shape)}，参数 ${spaced(row.params)}，乘法 ${spaced(row.mults)}`;
      const code = el("code", {}, row ? row.code : KINDS[layer.kind].code(layer, []));
      return el("li", { class: row && row.error ? "bad" : row ? "" : "cw-muted" },
        el("div", { class: "cw-stage" }, code, el("span", { class: "cw-out" }, out)),
        el("div", { class: "cw-stage" }, ...Object.keys(KINDS[layer.kind].fields).map((field) => number(layer, i, field)), ...tools));
    };

    const draw = () => {
      const active = document.activeElement, key = root.contains(active) && active.dataset.key;
      const { rows, error, why } = walk(state.image, state.layers);
      replace(stages, ...state.layers.map((layer, i) => stage(layer, i, rows[i])));
      if (key) {
        const again = [...stages.querySelectorAll("[data-key]")].find((node) => node.dataset.key === key);
        if (again) again.focus();
      }
      images.value = IMAGES.findIndex((image) => image.join() === state.image.join());
      adders.forEach((node) => { node.disabled = state.layers.length >= MOST; });
      const sum = (name) => rows.reduce((total, row) => total + (row[name] || 0), 0);
      replace(verdict, ...(error ? ["接不上。torch 会说：", el("code", {}, error), ` ${why}`]
        : [`一共 ${spaced(sum("params"))} 个参数；一张图过一遍，${spaced(sum("mults"))} 次乘法。`]));
      Object.assign(root.dataset, {
        shapes: JSON.stringify(rows.map((row) => row.shape || [])), params: sum("params"), mults: sum("mults"), error,
      });
    };

    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row" }, el("label", {}, "现成的 ", presets), el("label", {}, `${BATCH} 张图，每张 `, images)),
      stages, el("div", { class: "cw-row" }, ...adders), verdict);
    draw();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "pipeline", mount, walk, presets: PRESETS });
})();
