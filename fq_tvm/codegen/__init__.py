"""From an expression to object code: the only folder of the CPU path that imports TVM's compiler."""
