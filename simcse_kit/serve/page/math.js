// Principal axes and spherical k-means of unit vectors.

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

const scaled = (vector) => {
  const length = Math.hypot(...vector) || 1;
  return vector.map((value) => value / length);
};

/** Return vectors of length 1. */
export const normalized = (rows) => rows.map((row) => scaled(Float64Array.from(row)));

const sumOf = (rows, size) => {
  const total = new Float64Array(size);
  for (const row of rows) for (let i = 0; i < size; i++) total[i] += row[i];
  return total;
};

/** A generator of numbers in [0, 1) with a fixed seed, so that a drawing can be repeated. */
function numbers(seed) {
  let state = seed;
  return () => (state = (state * 1664525 + 1013904223) % 2 ** 32) / 2 ** 32;
}

/**
 * Project rows onto their first two principal axes, found by power iteration.
 *
 * @param {Float64Array[]} rows
 * @returns {{points: number[][], share: number}} the points, and the share of the variance in them
 */
export function principalPoints(rows) {
  const size = rows[0].length;
  const mean = sumOf(rows, size).map((value) => value / rows.length);
  const centred = rows.map((row) => row.map((value, i) => value - mean[i]));
  const total = centred.reduce((sum, row) => sum + dot(row, row), 0);
  const random = numbers(1);
  const axes = [];
  let kept = 0;
  while (axes.length < 2) {
    let axis = scaled(Float64Array.from({ length: size }, () => random() - 0.5));
    for (let step = 0; step < 100; step++) {
      const next = new Float64Array(size);
      for (const row of centred) {
        const weight = dot(row, axis);
        for (let i = 0; i < size; i++) next[i] += weight * row[i];
      }
      for (const other of axes) {
        const part = dot(next, other);
        for (let i = 0; i < size; i++) next[i] -= part * other[i];
      }
      const moved = scaled(next);
      const settled = Math.abs(dot(moved, axis)) > 1 - 1e-12;
      axis = moved;
      if (settled) break;
    }
    axes.push(axis);
    kept += centred.reduce((sum, row) => sum + dot(row, axis) ** 2, 0);
  }
  return {
    points: centred.map((row) => axes.map((axis) => dot(row, axis))),
    share: total ? kept / total : 0,
  };
}

const nearest = (row, centres) => {
  const cosines = centres.map((centre) => dot(row, centre));
  return cosines.indexOf(Math.max(...cosines));
};

/** Choose first centres that are likely to be far apart, as k-means++ does (Arthur and Vassilvitskii, 2007). */
function firstCentres(rows, count, random) {
  const centres = [rows[Math.floor(random() * rows.length)]];
  const far = rows.map(() => Infinity);
  while (centres.length < count) {
    rows.forEach((row, n) => (far[n] = Math.min(far[n], Math.max(0, 1 - dot(row, centres.at(-1))))));
    let left = random() * far.reduce((sum, value) => sum + value, 0);
    const found = far.findIndex((value) => (left -= value) < 0);
    centres.push(rows[found < 0 ? far.indexOf(Math.max(...far)) : found]);
  }
  return centres;
}

/**
 * Assign unit vectors to clusters by spherical k-means: the best of several runs.
 *
 * @returns {number[]} the cluster of each row, from 0
 */
export function kMeans(rows, count, runs = 8) {
  const random = numbers(7);
  let best = { fit: -Infinity, labels: [] };
  for (let run = 0; run < runs; run++) {
    let centres = firstCentres(rows, count, random);
    let labels = [];
    for (let step = 0; step < 30; step++) {
      const found = rows.map((row) => nearest(row, centres));
      if (found.every((label, n) => label === labels[n])) break;
      labels = found;
      centres = centres.map((centre, label) => {
        const members = rows.filter((_, n) => labels[n] === label);
        return members.length ? scaled(sumOf(members, centre.length)) : centre;
      });
    }
    const fit = rows.reduce((sum, row, n) => sum + dot(row, centres[labels[n]]), 0);
    if (fit > best.fit) best = { fit, labels };
  }
  return best.labels;
}

/**
 * Compute the mean silhouette (Rousseeuw, 1987) with the distance 1 - cosine.
 *
 * The mean cosine to a cluster is the dot product with the mean of its unit vectors, so no matrix of
 * all pairs is needed.
 */
export function silhouette(rows, labels) {
  const clusters = [...new Set(labels)];
  const sums = new Map();
  const counts = new Map();
  for (const label of clusters) {
    const members = rows.filter((_, n) => labels[n] === label);
    sums.set(label, sumOf(members, rows[0].length));
    counts.set(label, members.length);
  }
  let total = 0;
  rows.forEach((row, n) => {
    const own = labels[n];
    if (counts.get(own) === 1 || clusters.length === 1) return; // its silhouette is 0
    const near = 1 - (dot(row, sums.get(own)) - dot(row, row)) / (counts.get(own) - 1);
    const others = clusters.filter((label) => label !== own);
    const far = Math.min(...others.map((label) => 1 - dot(row, sums.get(label)) / counts.get(label)));
    total += (far - near) / (Math.max(far, near) || 1);
  });
  return total / rows.length;
}

/** Assign rows to the number of clusters, up to the given one, that has the highest silhouette. */
export function bestClusters(rows, most) {
  let best = { score: -Infinity, labels: rows.map(() => 0) };
  for (let count = 2; count <= Math.min(most, rows.length - 1); count++) {
    const labels = kMeans(rows, count);
    const score = silhouette(rows, labels);
    if (score > best.score) best = { score, labels };
  }
  return best.labels;
}
