// The points are drawn: by WebGL2, or on a plain canvas where there is none.

let paint;
function painter(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: false });
  if (!gl) return plainPainter(canvas);
  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, `#version 300 es\nprecision highp float;\n${source}`);
    gl.compileShader(made);
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `
    in vec2 place; in vec4 colour; uniform vec3 view; uniform vec2 size; uniform float dot_; out vec4 c;
    void main() {
      vec2 p = (view.xy + vec2(place.x, 1.0 - place.y) * view.z) / size;
      gl_Position = vec4(p.x * 2.0 - 1.0, 1.0 - p.y * 2.0, 0, 1); gl_PointSize = dot_; c = colour;
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
    in vec4 c; out vec4 o;
    void main() { if (length(gl_PointCoord - 0.5) > 0.5) discard; o = c; }`));
  gl.bindAttribLocation(program, 0, "place");
  gl.bindAttribLocation(program, 1, "colour");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return plainPainter(canvas);
  const places = gl.createBuffer(), tints = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, places);
  gl.bufferData(gl.ARRAY_BUFFER, xy, gl.STATIC_DRAW);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [uView, uSize, uDot] = ["view", "size", "dot_"].map(uniform);
  return {
    colours(bytes) {
      gl.bindBuffer(gl.ARRAY_BUFFER, tints);
      gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.DYNAMIC_DRAW);
    },
    draw() {
      const ratio = devicePixelRatio || 1;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.bindBuffer(gl.ARRAY_BUFFER, places);
      gl.enableVertexAttribArray(0);
      gl.vertexAttribPointer(0, 2, gl.UNSIGNED_SHORT, true, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, tints);
      gl.enableVertexAttribArray(1);
      gl.vertexAttribPointer(1, 4, gl.UNSIGNED_BYTE, true, 0, 0);
      gl.uniform3f(uView, view.x, view.y, view.scale);
      gl.uniform2f(uSize, size.w, size.h);
      gl.uniform1f(uDot, dotSize() * ratio);
      gl.drawArrays(gl.POINTS, 0, facts.n);
    },
  };
}

function plainPainter(canvas) {
  const context = canvas.getContext("2d");
  let tints = new Uint8Array();
  return {
    colours(bytes) { tints = bytes; },
    draw() {
      const ratio = devicePixelRatio || 1, dot = dotSize();
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, size.w, size.h);
      for (let i = 0; i < facts.n; i++) {
        const [x, y] = screen(i);
        if (x < 0 || y < 0 || x > size.w || y > size.h) continue;
        context.fillStyle = `rgba(${tints[4 * i]},${tints[4 * i + 1]},${tints[4 * i + 2]},${tints[4 * i + 3] / 255})`;
        context.fillRect(x - dot / 2, y - dot / 2, dot, dot);
      }
    },
  };
}

const dotSize = () => Math.max(2.5, Math.min(9, (9 * Math.sqrt(view.scale / 600)) / Math.max(1, Math.log10(facts.n) - 2)));
