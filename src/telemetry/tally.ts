type LabelValue = string | number;

/** Where a row of label values leads, and what was counted there since the counter was last told. */
class Branch {
  readonly values: readonly LabelValue[];
  readonly next = new Map<LabelValue, Branch>();
  amount = 0;

  constructor(values: readonly LabelValue[]) {
    this.values = values;
  }
}

/**
 * A counter that is fed with every request. prom-client composes a text of all labels at each count; here the values lead to a number,
 * and prom-client is told when somebody reads.
 */
export class Tally<L extends string> {
  readonly #labels: readonly L[];
  readonly #root = new Branch([]);
  readonly #all: Branch[] = [];

  constructor(labels: readonly L[]) {
    this.#labels = labels;
  }

  /** `values`: one for each label, in their order. */
  add(amount: number, ...values: readonly LabelValue[]): void {
    let branch = this.#root;
    for (const value of values) branch = branch.next.get(value) ?? this.#grow(branch, value);
    branch.amount += amount;
  }

  /** Hands over what has come since the last time. */
  tell(counter: { inc(labels: Partial<Record<L, LabelValue>>, amount: number): void }): void {
    for (const branch of this.#all) {
      if (branch.amount === 0) continue;
      const labels: Partial<Record<L, LabelValue>> = {};
      for (const [index, label] of this.#labels.entries()) labels[label] = branch.values[index] ?? '';
      counter.inc(labels, branch.amount);
      branch.amount = 0;
    }
  }

  #grow(from: Branch, value: LabelValue): Branch {
    const branch = new Branch([...from.values, value]);
    from.next.set(value, branch);
    this.#all.push(branch);
    return branch;
  }
}
