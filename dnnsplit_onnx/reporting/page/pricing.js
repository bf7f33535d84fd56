// What a plan takes, and which plan is best: `evaluate` and planner `exact` along the order.
// Cuts are places in `study.at`, the positions that the study holds.
const pricing = (() => {
  // M/M/c, as planning/waiting.py has it.
  const waits = ({ servers, capacity, rate }, seconds) => {
    if (!rate || seconds === 0) return 0;
    const busy = rate * seconds / capacity;
    if (!(busy < 1)) return Infinity;
    let inverse = 1;
    for (let k = 1; k <= servers; k++) inverse = 1 + inverse * k / (servers * busy);
    return (seconds / servers) / ((1 - busy) * inverse + busy) / (1 - busy);
  };

  // What each tier takes for a prefix and each link for a cut, under these settings.
  const priced = (study, settings) => {
    const { at, up, down, limits, weights } = study;
    const last = at.length - 1;
    const pace = limits.throughput === null ? Infinity : 1 / limits.throughput;
    // One figure of a tier's or a link's seconds; infinite where it cannot keep up.
    const take = (measure, seconds, fee, { watts, station, usd_per_s }) => {
      const step = seconds / station.capacity;
      if (seconds && step > pace * (1 + 1e-12)) return Infinity;
      const waiting = station.rate ? waits(station, seconds) : 0;
      if (waiting === Infinity) return Infinity;
      switch (measure) {
        case "latency": return seconds + waiting;
        case "cost": return usd_per_s * seconds + fee;
        case "energy": return seconds === 0 ? 0 : watts === null ? Infinity : watts * seconds;
        case "throughput": return step;
        default: return ["latency", "cost", "energy"].reduce((sum, one) =>
          (weights[one] ? sum + weights[one] * take(one, seconds, fee, { watts, station, usd_per_s }) : sum), 0);
      }
    };
    const MEASURES = ["latency", "cost", "energy", "throughput", ...(weights === null ? [] : ["weighted"])];
    const all = (seconds, fee, part) =>
      Object.fromEntries(MEASURES.map((measure) => [measure, take(measure, seconds, fee, part)]));
    const below = study.tiers.map((tier, t) => Float64Array.from(at, (_, i) => tier.below
      ? tier.below[i] / settings.speed[t]
      : study.flops[i] / (tier.gflops * settings.speed[t] * 1e9)));
    const seconds = (t, start, stop) => below[t][stop] - below[t][start];
    const fee = (t, start, stop) => (stop > start ? study.tiers[t].fee : 0);
    const amount = (measure, t, start, stop) =>
      take(measure, seconds(t, start, stop), fee(t, start, stop), study.tiers[t]);
    const stage = (t, start, stop) => ({ seconds: seconds(t, start, stop),
      ...all(seconds(t, start, stop), fee(t, start, stop), study.tiers[t]) });
    const links = study.links.map((link, t) => {
      const closed = new Set(link.closed);
      const delay = study.passes * settings.delay_ms[t] / 1e3;
      return at.map((_, i) => {
        const sends = i < last;
        const returns = settings.back ? down[i] : 0;
        const open = !closed.has(i) && (!sends || up[i] >= 0) && returns >= 0;
        let seconds = sends ? 8 * up[i] / (settings.mbps[t] * 1e6) + delay : 0;
        const back = settings.down_mbps[t] || settings.mbps[t];
        if (returns) seconds += 8 * returns / (back * 1e6) + delay;
        // What is paid by the byte is a fee, and its seconds are free.
        const paid = link.usd_per_gb === null ? 0 : ((sends ? up[i] : 0) + returns) * (link.usd_per_gb / 1e9);
        const rate = link.usd_per_gb === null ? link.usd_per_s : 0;
        return { open, seconds, nbytes: sends ? up[i] : 0, ...all(seconds, paid, { ...link, usd_per_s: rate }) };
      });
    });
    // What a second of a tier counts, where a stage takes nothing but its seconds and a fee; else null.
    const rateOf = (measure, t) => {
      const { station, watts, usd_per_s } = study.tiers[t];
      if (station.rate || pace < Infinity || watts === null) return null;
      const rates = { latency: 1, cost: usd_per_s, energy: watts };
      return measure in rates ? rates[measure] : null;
    };
    return { amount, rateOf, below, fee, stage, links, last, tiers: study.tiers.length };
  };

  // The figures of a plan; `broken` names the limits that it breaks.
  const evaluate = (study, settings, cuts, all = priced(study, settings)) => {
    const bounds = [0, ...cuts, all.last];
    const stages = study.tiers.map((_, t) => all.stage(t, bounds[t], bounds[t + 1]));
    const links = cuts.map((cut, t) => all.links[t][cut]);
    const parts = [...stages, ...links];
    const sum = (measure) => parts.reduce((total, part) => total + part[measure], 0);
    const steps = [...stages.map((one, t) => one.seconds / study.tiers[t].station.capacity),
      ...links.map((one, t) => one.seconds / study.links[t].station.capacity)];
    const figures = { cuts, stages, links, latency: sum("latency"), cost: sum("cost"), energy: sum("energy"),
      weighted: sum("weighted"), throughput: 1 / Math.max(...steps) };
    const broken = ["latency", "cost", "energy"].filter((measure) =>
      study.limits[measure] !== null && !(figures[measure] <= study.limits[measure] * (1 + 1e-12)));
    if (parts.some((part) => part.throughput === Infinity)) broken.push("throughput");
    const apart = (first, t) => first !== null && bounds[t] < first[bounds[t + 1]];
    if (study.tiers.some((tier, t) => apart(tier.first, t))) broken.push("memory");
    if (links.some((one) => !one.open)) broken.push("rules");
    return { ...figures, broken };
  };

  const value = (figures, aim) => (aim === "throughput" ? 1 / figures.throughput : figures[aim]);

  // The same where a stage is a difference of prefixes: the least beyond each start is known from the last.
  const nearest = (row, beyond, prefix, fee) => {
    let least = Infinity;
    let at = -1;
    for (let start = beyond.length - 1; start >= 0; start--) {
      const some = least - prefix[start] + fee;
      row.value[start] = Math.min(beyond[start], some);
      row.stop[start] = beyond[start] <= some ? start : at;
      if (prefix[start] + beyond[start] <= least) { least = prefix[start] + beyond[start]; at = start; }
    }
  };

  // For each tier and start, the least that is left to take, and the stop that takes it.
  const ahead = (study, all, measure) => {
    const join = measure === "throughput" ? Math.max : (one, two) => one + two;
    const least = [];
    for (let t = all.tiers - 1; t >= 0; t--) {
      const { first } = study.tiers[t];
      const row = { value: new Float64Array(all.last + 1).fill(Infinity), stop: new Int32Array(all.last + 1) };
      const top = t === all.tiers - 1;
      const beyond = top ? null : Float64Array.from(all.links[t], (link, stop) =>
        (link.open ? join(link[measure], least[0].value[stop]) : Infinity));
      const rate = all.rateOf(measure, t);
      if (!top && first === null && rate !== null) {
        nearest(row, beyond, all.below[t].map((one) => rate * one), measure === "cost" ? study.tiers[t].fee : 0);
        least.unshift(row);
        continue;
      }
      for (let start = 0; start <= (t ? all.last : 0); start++) {
        for (let stop = top ? all.last : start; stop <= all.last; stop++) {
          if (first !== null && start < first[stop]) continue;
          let found = all.amount(measure, t, start, stop);
          if (!top) found = join(found, beyond[stop]);
          if (found < row.value[start]) { row.value[start] = found; row.stop[start] = stop; }
        }
      }
      least.unshift(row);
    }
    return { join, least };
  };

  // The best plan, or null if none keeps to the limits.
  const MOST = 2e7; // partial plans that a search under limits looks at
  const best = (study, settings, aim) => {
    const all = priced(study, settings);
    const limited = ["latency", "cost", "energy"].filter((measure) => study.limits[measure] !== null);
    const goal = ahead(study, all, aim);
    let cuts = [];
    let whole = true;
    if (!limited.length) {
      if (goal.least[0].value[0] === Infinity) return null;
      for (let t = 0, start = 0; t < all.tiers - 1; t++) cuts.push(start = goal.least[t].stop[start]);
    } else {
      const bounds = limited.map((measure) => ({ measure, most: study.limits[measure] * (1 + 1e-12),
        ...ahead(study, all, measure) }));
      let least = Infinity;
      let seen = 0;
      const visit = (t, start, taken, spent, path) => {
        if (t === all.tiers - 1) {
          const end = evaluate(study, settings, path, all);
          if (!end.broken.length && value(end, aim) < least) { least = value(end, aim); cuts = path; }
          return;
        }
        const { first } = study.tiers[t];
        for (let stop = start; stop <= all.last; stop++) {
          if (++seen > MOST) { whole = false; return; }
          const link = all.links[t][stop];
          if (!link.open || (first !== null && start < first[stop])) continue;
          const now = goal.join(goal.join(taken, all.amount(aim, t, start, stop)), link[aim]);
          if (!(goal.join(now, goal.least[t + 1].value[stop]) < least)) continue;
          const sums = bounds.map(({ measure }, k) => spent[k] + all.amount(measure, t, start, stop) + link[measure]);
          if (bounds.some((b, k) => sums[k] + b.least[t + 1].value[stop] > b.most)) continue;
          visit(t + 1, stop, now, sums, [...path, stop]);
        }
      };
      visit(0, 0, 0, bounds.map(() => 0), []);
      if (least === Infinity) return null;
    }
    const found = evaluate(study, settings, cuts, all);
    // A single tier that is as good stands for itself.
    const alone = singles(study, settings, all).find((one) =>
      !one.broken.length && value(one, aim) <= value(found, aim) * (1 + 1e-12));
    return { ...(alone || found), whole };
  };

  // Everything on each tier.
  const singles = (study, settings, all = priced(study, settings)) => study.tiers.map((_, tier) => {
    const cuts = study.links.map((_, t) => (t < tier ? 0 : all.last));
    return evaluate(study, settings, cuts, all);
  });

  const now = (study) => ({ speed: study.tiers.map(() => 1), mbps: study.links.map((link) => link.mbps),
    down_mbps: study.links.map((link) => link.down_mbps),
    delay_ms: study.links.map((link) => link.delay_ms), back: study.back });

  return { best, evaluate, singles, value, now };
})();
