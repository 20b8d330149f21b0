"""What is to be solved: units in the model's order, budgets, constraints, the workload's memory."""
