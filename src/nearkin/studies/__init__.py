"""Studies: a question, the runs that it takes, and what came of them.

A study is a module with

    TITLE, QUESTION                 a line, a paragraph
    recipes(data=..., seeds=..., ...) -> list[Recipe]
                                    its parameters are the options of `nearkin study`
    answer(rows) -> Answer          of the rows of those recipes

both functions pure. What most of them take, and the studies do not say again:

    data       the data set
    seeds      how many, from 0
    epochs     the most that a run may take; 0 takes the common number
    tune       whether settings are searched; otherwise the common ones are taken
    searched   the rows of `search`

Two optional functions, pure as well:

    search(data=..., ...) -> list[Recipe]
                                    runs on validation classes that choose settings; their rows are
                                    then given to `recipes` as its argument `searched`
    measure(...) -> Measurements    in place of recipes, for a study that trains nothing by a
                                    recipe: the hash of each setting, and what makes its row
"""

from nearkin.registry import STUDIES as STUDIES
