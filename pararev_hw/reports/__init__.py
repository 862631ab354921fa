"""What a person sees of a study: a page, pictures, tables, and the same as JSON. Reports see only types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pararev_hw.rooms import names_when_used

if TYPE_CHECKING:
    from pararev_hw.reports.against import SideBySide as SideBySide
    from pararev_hw.reports.against import read_report as read_report
    from pararev_hw.reports.against import side_by_side as side_by_side
    from pararev_hw.reports.against import side_by_side_document as side_by_side_document
    from pararev_hw.reports.against import side_by_side_table as side_by_side_table
    from pararev_hw.reports.blockgraph import graph_svg as graph_svg
    from pararev_hw.reports.columns import by_row as by_row
    from pararev_hw.reports.comparison import compare_svg as compare_svg
    from pararev_hw.reports.comparison import comparison_document as comparison_document
    from pararev_hw.reports.comparison import comparison_lines as comparison_lines
    from pararev_hw.reports.comparison import write_comparison as write_comparison
    from pararev_hw.reports.document import report_document as report_document
    from pararev_hw.reports.front import front_svg as front_svg
    from pararev_hw.reports.gantt import gantt_svg as gantt_svg
    from pararev_hw.reports.insight_lines import insights as insights
    from pararev_hw.reports.layers import longest_layers_table as longest_layers_table
    from pararev_hw.reports.memory import memory_svg as memory_svg
    from pararev_hw.reports.page import report_html as report_html
    from pararev_hw.reports.paper import paper_answer as paper_answer
    from pararev_hw.reports.paper import paper_document as paper_document
    from pararev_hw.reports.paper import paper_table as paper_table
    from pararev_hw.reports.paper import write_paper as write_paper
    from pararev_hw.reports.perfetto import trace_document as trace_document
    from pararev_hw.reports.phrasing import answer as answer
    from pararev_hw.reports.phrasing import answer_lines as answer_lines
    from pararev_hw.reports.replay_script import run_script as run_script
    from pararev_hw.reports.sweep import sweep_answer as sweep_answer
    from pararev_hw.reports.sweep import sweep_document as sweep_document
    from pararev_hw.reports.sweep import sweep_remarks as sweep_remarks
    from pararev_hw.reports.sweep import sweep_table as sweep_table
    from pararev_hw.reports.sweep import write_sweep as write_sweep
    from pararev_hw.reports.sweep_phrasing import workload_lines as workload_lines
    from pararev_hw.reports.text import comparison_table as comparison_table
    from pararev_hw.reports.text import study_table as study_table
    from pararev_hw.reports.validation import accuracy_table as accuracy_table
    from pararev_hw.reports.validation import case_row as case_row
    from pararev_hw.reports.validation import cases_table as cases_table
    from pararev_hw.reports.validation import validation_answer as validation_answer
    from pararev_hw.reports.validation import validation_document as validation_document
    from pararev_hw.reports.validation import worst_ops_table as worst_ops_table
    from pararev_hw.reports.validation_page import validation_html as validation_html
    from pararev_hw.reports.validation_page import write_validation as write_validation
    from pararev_hw.reports.write import write_report as write_report
else:
    __getattr__ = names_when_used(__name__)
