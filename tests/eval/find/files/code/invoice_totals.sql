-- What each customer owes, and since when.
SELECT c.name, SUM(i.amount - i.paid) AS outstanding, MIN(i.due_on) AS oldest
FROM invoices i JOIN customers c ON c.id = i.customer_id
WHERE i.paid < i.amount
GROUP BY c.name
HAVING SUM(i.amount - i.paid) > 0
ORDER BY outstanding DESC;
